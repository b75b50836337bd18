"""The client: what an application uses to enqueue jobs and to ask about them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import hiredis

from rqsup.buffer import Buffer
from rqsup.envelope import check_name
from rqsup.errors import RedisUnavailable, ResultTimeout
from rqsup.job import Job, JobRecord
from rqsup.request import (
    CALL_JOBS,
    CHUNK,
    CHUNK_BYTES,
    RESULT_PAUSE_CAP_S,
    RESULT_PAUSE_S,
    Request,
    cancel_call,
    check_cancelled,
    choose,
    found,
    has_result,
    pairs,
    result_of,
)
from rqsup.sending import Packer, Sending
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.keys import Keys
from rqsup.store.lines import Lines
from rqsup.store.reach import fate_unknown
from rqsup.task import Task

if TYPE_CHECKING:
    from rqsup.store.connection import Store

_log = logging.getLogger("rqsup.client")


class Client:
    """Sends jobs and reads their states. Safe to share between threads; not across a fork.

    Args:
        url: address of Redis; None = as in `settings`.
        settings: the whole configuration; default: all defaults.

    Raises:
        ConfigError: the address or the namespace is outside what a configuration may say.

    It opens no connection before the first call. `connect()` waits for Redis, and checks it.
    """

    def __init__(
        self, url: str | None = None, *, namespace: str | None = None, settings: Settings | None = None
    ) -> None:
        self.settings = settings = choose(settings, url, namespace)
        self.keys = Keys(settings.namespace)
        self._packer = Packer(settings)
        self._lines = Lines(settings.redis)

    @cached_property
    def store(self) -> Store:
        """For inspection: opens connections of its own, and loads redis-py, only when used."""
        # 10 MB in each process that only sends, and in each worker whose tasks send.
        from rqsup.store.connection import Store, connect

        return Store(connect(self.settings.redis))

    @classmethod
    def from_config(cls, path: str | None = None) -> Client:
        """A client with the settings of a file and of the environment.

        Raises:
            ConfigError: with every fault that was found.
        """
        from rqsup.config import load  # with YAML, which nobody else needs

        return cls(settings=load(path))

    def connect(self) -> Client:
        """Wait until Redis answers and check that it is fit to keep jobs.

        Raises:
            RedisUnavailable: it does not answer within the tries of `redis.connect_tries`.
            ServerUnfit: it is too old, or evicts keys.
        """
        from rqsup.store.connection import await_server  # with redis-py, as `store`

        await_server(self.store.client, self.settings.redis, _log.warning)
        return self

    def close(self) -> None:
        """Close all connections. The client may be used again: the next call opens another."""
        self._lines.close()
        if "store" in self.__dict__:
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
        sending = self._packer.prepare(request)
        try:
            verdict = self._lines.run(sending)
        except RedisUnavailable as fault:
            raise fate_unknown(self.settings.redis, fault) from fault
        sending.check_accepted(verdict)
        return Job(sending.job_id, self)

    def enqueue_many(self, requests: Iterable[Request]) -> list[Job]:
        """Send many jobs, `CHUNK` per round trip; streams the iterable.

        Raises:
            EnqueueError: a job was not accepted; the jobs of earlier chunks are, and so may be
                others of its own chunk. Give ids of your own to be able to repeat.
        """
        sendings = map(self._packer.prepare, requests)
        jobs: list[Job] = []
        while answered := self._deliver(sendings):
            for sending, verdict in answered:
                sending.check_accepted(verdict)
                jobs.append(Job(sending.job_id, self))
        return jobs

    def buffer(
        self, *, max_jobs: int = 10_000, max_bytes: int = 16 << 20, max_delay_s: float = 0.01, patience_s: float = 30.0
    ) -> Buffer:
        """A context manager whose `enqueue` does not wait for Redis: a thread sends its jobs in chunks.

        A job in the buffer is not accepted yet; a crash of this process loses it. See `Buffer`.
        """
        return Buffer(
            self, self._packer.prepare, self._deliver,
            max_jobs=max_jobs, max_bytes=max_bytes, max_delay_s=max_delay_s, patience_s=patience_s,
        )  # fmt: skip

    def get(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            JobNotFound: no job has it, or its record has expired.
        """
        return Job(job_id, self).refresh()

    def record(self, job_id: str) -> JobRecord:
        """What Redis holds of a job now. Raises as `get`."""
        key = self.keys.job(check_name("job id", job_id))
        return found(job_id, pairs(self._answer(lambda: self._lines.command("HGETALL", key))), self.settings)

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
        check_cancelled(job_id, self._ask(cancel_call(job_id, self.settings)), self.settings)

    def _deliver(self, sendings: Iterator[Sending]) -> list[tuple[Sending, Any]]:
        """Send a chunk of jobs made ready, and return them, each with its answer; empty when there is none left.

        Raises:
            RedisUnavailable: each may or may not have been accepted.
        """
        try:
            answers = self._lines.run_many(self._packer.batches(sendings), CHUNK // CALL_JOBS, CHUNK_BYTES)
        except RedisUnavailable as fault:
            raise fate_unknown(self.settings.redis, fault) from fault
        return [verdict for batch, answer in answers for verdict in batch.verdicts(answer)]

    def _ask(self, call: scripts.Call[str]) -> str:
        return call.decode(self._answer(lambda: self._lines.run(call)))

    def _answer(self, act: Callable[[], Any]) -> Any:
        try:
            reply = act()
        except RedisUnavailable as fault:
            raise fate_unknown(self.settings.redis, fault) from fault
        if isinstance(reply, hiredis.ReplyError):
            raise RedisUnavailable(f"Redis refuses the command: {reply}")
        return reply
