"""The client: what an application uses to enqueue jobs and to ask about them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import redis
import redis.exceptions

from rqsup.config import load
from rqsup.envelope import check_name
from rqsup.errors import EnqueueError, RedisUnavailable, ResultTimeout
from rqsup.job import Job, JobRecord
from rqsup.request import (
    RESULT_PAUSE_CAP_S,
    RESULT_PAUSE_S,
    Request,
    Sending,
    cancel_call,
    check_accepted,
    check_all_accepted,
    check_cancelled,
    choose,
    chunks,
    found,
    has_result,
    prepare,
    result_of,
    together,
)  # fmt: skip
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.connection import UNAVAILABLE, Store, await_server, connect, no_answer
from rqsup.store.keys import Keys
from rqsup.task import Task

_log = logging.getLogger("rqsup.client")


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
        self.settings = settings = choose(settings, url, namespace)
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
        sending = prepare(request, self.settings)
        try:
            verdict = self._run(sending.call)
        except RedisUnavailable as fault:
            if isinstance(fault.__cause__, redis.exceptions.ResponseError):
                raise EnqueueError(f"Redis refused the job: {fault.__cause__}") from fault
            raise
        check_accepted(sending, verdict, self.settings)
        return Job(sending.job_id, self)

    def enqueue_many(self, requests: Iterable[Request]) -> list[Job]:
        """Send many jobs, `CHUNK` per round trip; streams the iterable.

        Raises:
            EnqueueError: a job was not accepted; the jobs of earlier chunks are, and so may be
                others of its own chunk. Give ids of your own to be able to repeat.
        """
        return [job for chunk in chunks(requests, self.settings) for job in self._send_chunk(chunk)]

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            JobNotFound: no job has it, or its record has expired.
        """
        return Job(job_id, self).refresh()

    def record(self, job_id: str) -> JobRecord:
        """What Redis holds of a job now. Raises as `get`."""
        key = self.keys.job(check_name("job id", job_id))
        return found(job_id, self._redis(lambda client: client.hgetall(key)), self.settings)

    def result(self, job_id: str, timeout: float | None = None) -> Any:
        """Wait for a job's end; see `Job.result`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause_s = RESULT_PAUSE_S
        while not has_result(record := self.record(job_id)):
            if deadline is not None and time.monotonic() >= deadline:
                raise ResultTimeout(f"job {job_id} is still {record.state} after {timeout:g} s")
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, RESULT_PAUSE_CAP_S)
        return result_of(record)

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not started; see `Job.cancel`."""
        check_cancelled(job_id, self._run(cancel_call(job_id, self.settings)), self.settings)

    def _send_chunk(self, chunk: list[Sending]) -> list[Job]:
        try:
            answers = self.store.run_many(together(chunk, self.settings))
        except UNAVAILABLE as fault:
            raise RedisUnavailable(f"Redis went away while jobs were sent: {fault}") from fault
        check_all_accepted(chunk, answers, self.settings)
        return [Job(sending.job_id, self) for sending in chunk]

    def _run(self, call: scripts.Call[str]) -> str:
        return str(self._redis(lambda _: self.store.run(call)))

    def _redis(self, act: Any) -> Any:
        try:
            return act(self.store.client)
        except UNAVAILABLE as fault:
            raise RedisUnavailable(
                f"{no_answer(self.settings.redis, fault)}. If this was an enqueue, its fate is unknown: "
                "the same job_id again makes no second job"
            ) from fault
        except redis.exceptions.ResponseError as fault:
            raise RedisUnavailable(f"Redis refuses the command: {fault}") from fault
