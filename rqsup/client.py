"""The client: what an application uses to enqueue jobs and to ask about them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec
import redis
import redis.exceptions

from rqsup.config import load
from rqsup.envelope import Envelope, check_name, encode, new_id
from rqsup.errors import (
    EnqueueError,
    InvalidJob,
    JobFailed,
    JobNotCancellable,
    JobNotFound,
    QueueFull,
    RedisUnavailable,
    ResultTimeout,
)  # fmt: skip
from rqsup.job import Job, JobRecord, JobState, Level
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.connection import UNAVAILABLE, Store, await_server, connect
from rqsup.store.keys import Keys
from rqsup.store.records import read_record
from rqsup.task import Task

_log = logging.getLogger("rqsup.client")

#: First and longest pause between two looks at an unfinished job, seconds.
RESULT_PAUSE_S, RESULT_PAUSE_CAP_S = 0.002, 0.1
#: Jobs sent in one round trip by `enqueue_many`.
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Request:
    """One job to be enqueued, for `enqueue_many`; the fields are those of `Client.enqueue`."""

    task: Task[..., Any] | str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    queue: str | None = None
    priority: str | int | Level | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    delay_s: float = 0.0
    due_at: datetime | None = None


class Client:
    """Sends jobs and reads their states. Safe to share between threads; not across a fork.

    Args:
        url: address of Redis; None = as in `settings`.
        settings: the whole configuration; default: all defaults.

    It opens no connection before the first call. `connect()` waits for Redis, and checks it.
    """

    def __init__(
        self, url: str | None = None, *, namespace: str | None = None, settings: Settings | None = None
    ) -> None:
        settings = settings or Settings()
        if url is not None:
            settings = msgspec.structs.replace(settings, redis=msgspec.structs.replace(settings.redis, url=url))
        if namespace is not None:
            settings = msgspec.structs.replace(settings, namespace=namespace)
        self.settings = settings
        self.keys = Keys(settings.namespace)
        self.store = Store(connect(settings.redis))

    @classmethod
    def from_config(cls, path: str | None = None) -> Client:
        """A client with the settings of a file and of the environment.

        Raises:
            ConfigError: with every fault that was found.
        """
        return cls(settings=load(path))

    def connect(self) -> Client:
        """Wait until Redis answers and check that it is fit to keep jobs.

        Raises:
            RedisUnavailable: it does not answer within the tries of `redis.connect_tries`.
            ServerUnfit: it is too old, or evicts keys.
        """
        await_server(self.store.client, self.settings.redis, _log.warning)
        return self

    def close(self) -> None:
        """Close all connections."""
        self.store.client.connection_pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def enqueue(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """Send one job, in one round trip.

        Args:
            task: a task, or its name when its code is not here.

        Raises:
            InvalidJob, PayloadTooLarge, QueueFull: it was not accepted.
            RedisUnavailable: it may or may not have been accepted. Sending it again with the same
                id, by `send(Request(…, job_id=…))`, is safe: an accepted id is not accepted twice.
        """
        return self.send(Request(task, args, kwargs))

    def enqueue_in(self, delay_s: float, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """Send a job that becomes due after so many seconds, by the server's clock. Raises as `enqueue`."""
        return self.send(Request(task, args, kwargs, delay_s=delay_s))

    def enqueue_at(self, due_at: datetime, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """Send a job that becomes due at a time. Raises as `enqueue`; InvalidJob for a time without zone."""
        return self.send(Request(task, args, kwargs, due_at=due_at))

    def send(self, request: Request) -> Job:
        """Send one job with its options. Raises as `enqueue`."""
        call, job_id = self._enqueue_call(request)
        try:
            verdict = self._run(call)
        except RedisUnavailable as fault:
            if isinstance(fault.__cause__, redis.exceptions.ResponseError):
                raise EnqueueError(f"Redis refused the job: {fault.__cause__}") from fault
            raise
        if verdict == "full":
            raise self._full(request)
        return Job(job_id, self)

    def enqueue_many(self, requests: Iterable[Request]) -> list[Job]:
        """Send many jobs, `CHUNK` per round trip; streams the iterable.

        Raises:
            EnqueueError: a job was not accepted; the jobs of earlier chunks are, and so may be
                others of its own chunk. Give ids of your own to be able to repeat.
        """
        jobs: list[Job] = []
        chunk: list[Request] = []
        for request in requests:
            chunk.append(request)
            if len(chunk) == CHUNK:
                jobs += self._send_chunk(chunk)
                chunk = []
        return jobs + self._send_chunk(chunk)

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            JobNotFound: no job has it, or its record has expired.
        """
        return Job(job_id, self).refresh()

    def record(self, job_id: str) -> JobRecord:
        """What Redis holds of a job now. Raises as `get`."""
        fields = self._redis(lambda client: client.hgetall(self.keys.job(check_name("job id", job_id))))
        record = read_record(job_id, fields)
        if record is None:
            raise JobNotFound(
                f"no job {job_id} in namespace {self.settings.namespace!r}: never accepted, or its record has expired"
            )
        return record

    def result(self, job_id: str, timeout: float | None = None) -> Any:
        """Wait for a job's end; see `Job.result`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = RESULT_PAUSE_S
        while True:
            record = self.record(job_id)
            if record.state is JobState.SUCCEEDED:
                return json.loads(record.result or b"null")
            if record.state in {JobState.DEAD, JobState.CANCELLED}:
                raise JobFailed(f"job {job_id} is {record.state}: {_why(record)}")
            if deadline is not None and time.monotonic() >= deadline:
                raise ResultTimeout(f"job {job_id} is still {record.state} after {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 2, RESULT_PAUSE_CAP_S)

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not started; see `Job.cancel`."""
        ttl_ms = max(1, int(self.settings.workers.result_ttl * 1000))
        verdict = self._run(scripts.cancel(self.keys.root, job_id=check_name("job id", job_id), ttl_ms=ttl_ms))
        if verdict == "missing":
            raise JobNotFound(f"no job {job_id} in namespace {self.settings.namespace!r}")
        if verdict != "cancelled":
            raise JobNotCancellable(f"job {job_id} is {verdict}: only a ready or scheduled job can be cancelled")

    def _send_chunk(self, chunk: list[Request]) -> list[Job]:
        prepared = [self._enqueue_call(request) for request in chunk]
        try:
            verdicts = self.store.run_many([call for call, _ in prepared])
        except UNAVAILABLE as fault:
            raise RedisUnavailable(f"Redis went away while jobs were sent: {fault}") from fault
        for request, verdict in zip(chunk, verdicts, strict=True):
            if isinstance(verdict, Exception):
                raise EnqueueError(f"Redis refused a job: {verdict}") from verdict
            if verdict == "full":
                raise self._full(request)
        return [Job(job_id, self) for _, job_id in prepared]

    def _enqueue_call(self, request: Request) -> tuple[scripts.Call[str], str]:
        envelope = _envelope(request)
        data = encode(envelope, self.settings.limits.payload_bytes)
        call = scripts.enqueue(
            self.keys.root,
            job_id=envelope.id,
            queue=envelope.queue,
            level=envelope.level,
            envelope=data,
            due_ms=_due_ms(request),
            delay_ms=_delay_ms(request),
            max_length=self.settings.limits.queue_length,
        )
        return call, envelope.id

    def _full(self, request: Request) -> QueueFull:
        return QueueFull(
            f"queue {_envelope(request).queue!r} holds {self.settings.limits.queue_length} jobs (limits.queue_length): "
            "send later, or start more workers"
        )

    def _run(self, call: scripts.Call[str]) -> str:
        return str(self._redis(lambda _: self.store.run(call)))

    def _redis(self, act: Any) -> Any:
        try:
            return act(self.store.client)
        except UNAVAILABLE as fault:
            raise RedisUnavailable(
                f"Redis does not answer: {fault}; if this was an enqueue, its fate is unknown"
            ) from fault
        except redis.exceptions.ResponseError as fault:
            raise RedisUnavailable(f"Redis refuses the command: {fault}") from fault


def _envelope(request: Request) -> Envelope:
    task = request.task
    declared = task if isinstance(task, Task) else None
    level = declared.level if declared and request.priority is None else request.priority
    try:
        label = Level.parse(Level.NORMAL if level is None else level).label
    except ValueError as fault:
        raise InvalidJob(str(fault)) from fault
    return Envelope(
        id=request.job_id or new_id(),
        task=declared.name if declared else str(task),
        queue=request.queue or (declared.queue if declared else "default"),
        level=label,
        args=list(request.args),
        kwargs=request.kwargs,
        max_attempts=request.max_attempts,
        timeout_s=request.timeout,
    )


def _due_ms(request: Request) -> int:
    if request.due_at is None:
        return 0
    if request.due_at.tzinfo is None:
        raise InvalidJob("the due time has no time zone: use datetime.now(timezone.utc) or .astimezone()")
    return int(request.due_at.timestamp() * 1000)


def _delay_ms(request: Request) -> int:
    if not 0 <= request.delay_s < 1e9:
        raise InvalidJob(f"the delay must be 0 to 1e9 seconds, not {request.delay_s}")
    return round(request.delay_s * 1000)


def _why(record: JobRecord) -> str:
    if record.reason:
        return record.reason
    error = record.error or {}
    return str(error.get("message") or error.get("type") or "no reason recorded")
