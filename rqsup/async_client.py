"""The client for asyncio: the same methods as `Client`, as coroutines."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import hiredis

from rqsup.config import load
from rqsup.envelope import check_name
from rqsup.errors import RedisUnavailable, ResultTimeout
from rqsup.job import JobRecord, JobState
from rqsup.request import (
    CALL_JOBS,
    CHUNK,
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
from rqsup.sending import Batch, Packer
from rqsup.settings import Settings
from rqsup.store.async_wire import AsyncWire
from rqsup.store.keys import Keys
from rqsup.store.reach import check_server, connect_pauses, fate_unknown, never_answered
from rqsup.store.replies import is_login_refused, read_info, root_cause
from rqsup.task import Task

_log = logging.getLogger("rqsup.client")


@dataclass(slots=True)
class AsyncJob:
    """A job as its sender sees it; `record` is what `refresh()` read last."""

    id: str
    client: AsyncClient
    record: JobRecord | None = None

    @property
    def state(self) -> JobState | None:
        """State at the last refresh, or None when it was never read."""
        return self.record.state if self.record else None

    async def refresh(self) -> AsyncJob:
        """Read the job again and return it. Raises as `Job.refresh`."""
        self.record = await self.client.record(self.id)
        return self

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - the same signature as Job.result
        """Wait until the job has ended and return what its handler returned; see `Job.result`."""
        return await self.client.result(self.id, timeout=timeout)

    async def cancel(self) -> None:
        """Cancel the job, if it has not started; see `Job.cancel`."""
        await self.client.cancel(self.id)


class AsyncClient:
    """Sends jobs and reads their states, in one event loop; see `Client` for each method.

    All tasks share one connection: their calls are sent without waiting for each other's answers, those
    of one turn of the loop in one write. Call `enqueue` from many tasks at once; a cancelled one disturbs
    none of the others, but its job may have been accepted.
    """

    def __init__(
        self, url: str | None = None, *, namespace: str | None = None, settings: Settings | None = None
    ) -> None:
        self.settings = settings = choose(settings, url, namespace)
        self.keys = Keys(settings.namespace)
        self._packer = Packer(settings)
        self._wire = AsyncWire(settings.redis, scripts=("enqueue", "enqueue_many"))

    @classmethod
    def from_config(cls, path: str | None = None) -> AsyncClient:
        """A client with the settings of a file and of the environment.

        Raises:
            ConfigError: with every fault that was found.
        """
        return cls(settings=load(path))

    async def connect(self) -> AsyncClient:
        """Wait until Redis answers and check that it is fit to keep jobs; see `Client.connect`."""
        settings = self.settings.redis
        for attempt, pause_s in connect_pauses(settings.connect_tries):
            try:
                check_server(read_info(await self._answer(self._wire.command("INFO"))))
            except RedisUnavailable as fault:
                cause = root_cause(fault)
                if is_login_refused(cause):
                    raise
                if pause_s is None:
                    raise never_answered(settings, cause) from fault
                _log.warning("%s; try %d of %d, next in %g s", fault, attempt, settings.connect_tries, pause_s)
                await asyncio.sleep(pause_s)
            else:
                return self
        raise AssertionError("unreachable: the last try returns or raises")

    async def close(self) -> None:
        """Close all connections. The client may be used again, also in another event loop."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def enqueue(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> AsyncJob:
        """Send one job, in one round trip; see `Client.enqueue`."""
        return await self.send(Request(task, args, kwargs))

    async def enqueue_in(self, delay_s: float, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> AsyncJob:
        """Send a job that becomes due after so many seconds, by the server's clock."""
        return await self.send(Request(task, args, kwargs, delay_s=delay_s))

    async def enqueue_at(self, due_at: datetime, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> AsyncJob:
        """Send a job that becomes due at a time."""
        return await self.send(Request(task, args, kwargs, due_at=due_at))

    async def send(self, request: Request) -> AsyncJob:
        """Send one job with its options."""
        sending = self._packer.prepare(request)
        try:
            verdict = await self._wire.run(sending)
        except RedisUnavailable as fault:
            raise fate_unknown(self.settings.redis, fault) from fault
        sending.check_accepted(verdict)
        return AsyncJob(sending.job_id, self)

    async def enqueue_many(self, requests: Iterable[Request]) -> list[AsyncJob]:
        """Send many jobs, `request.CHUNK` per round trip; see `Client.enqueue_many`."""
        batches = self._packer.batches(map(self._packer.prepare, requests))
        jobs: list[AsyncJob] = []
        while chunk := list(itertools.islice(batches, CHUNK // CALL_JOBS)):
            jobs += await self._send_chunk(chunk)
        return jobs

    async def get(self, job_id: str) -> AsyncJob:
        """The job with this id; see `Client.get`."""
        return await AsyncJob(job_id, self).refresh()

    async def record(self, job_id: str) -> JobRecord:
        """What Redis holds of a job now; see `Client.record`."""
        key = self.keys.job(check_name("job id", job_id))
        return found(job_id, pairs(await self._answer(self._wire.command("HGETALL", key))), self.settings)

    async def result(self, job_id: str, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as Client.result
        """Wait for a job's end; see `Job.result`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause_s = RESULT_PAUSE_S
        while not has_result(record := await self.record(job_id)):
            if deadline is not None and time.monotonic() >= deadline:
                raise ResultTimeout(f"job {job_id} is still {record.state} after {timeout:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESULT_PAUSE_CAP_S)
        return result_of(record)

    async def cancel(self, job_id: str) -> None:
        """Cancel a job that has not started; see `Job.cancel`."""
        call = cancel_call(job_id, self.settings)
        check_cancelled(job_id, call.decode(await self._answer(self._wire.run(call))), self.settings)

    async def _send_chunk(self, chunk: list[Batch]) -> list[AsyncJob]:
        try:
            answers = await self._wire.run_many(chunk)
        except RedisUnavailable as fault:
            raise fate_unknown(self.settings.redis, fault) from fault
        verdicts = [one for batch, answer in zip(chunk, answers, strict=True) for one in batch.verdicts(answer)]
        for sending, verdict in verdicts:
            sending.check_accepted(verdict)
        return [AsyncJob(sending.job_id, self) for sending, _ in verdicts]

    async def _answer(self, asked: Awaitable[Any]) -> Any:
        try:
            answer = await asked
        except RedisUnavailable as fault:
            raise fate_unknown(self.settings.redis, fault) from fault
        if isinstance(answer, hiredis.ReplyError):
            raise RedisUnavailable(f"Redis refuses the command: {answer}") from answer
        return answer
