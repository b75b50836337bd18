"""The client for asyncio: the same methods as `Client`, as coroutines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from rqsup.config import load
from rqsup.envelope import check_name
from rqsup.errors import EnqueueError, RedisRefused, ResultTimeout
from rqsup.job import JobRecord, JobState
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
from rqsup.store.async_store import AsyncStore
from rqsup.store.keys import Keys
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
    """Sends jobs and reads their states, in one event loop; see `Client` for each method."""

    def __init__(
        self, url: str | None = None, *, namespace: str | None = None, settings: Settings | None = None
    ) -> None:
        self.settings = settings = choose(settings, url, namespace)
        self.keys = Keys(settings.namespace)
        self.store = AsyncStore(settings.redis)

    @classmethod
    def from_config(cls, path: str | None = None) -> AsyncClient:
        """A client with the settings of a file and of the environment.

        Raises:
            ConfigError: with every fault that was found.
        """
        return cls(settings=load(path))

    async def connect(self) -> AsyncClient:
        """Wait until Redis answers and check that it is fit to keep jobs; see `Client.connect`."""
        await self.store.await_server(lambda fault, _: _log.warning("%s", fault))
        return self

    async def close(self) -> None:
        """Close all connections."""
        await self.store.close()

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
        sending = prepare(request, self.settings)
        try:
            verdict = await self.store.run(sending.call)
        except RedisRefused as fault:
            raise EnqueueError(f"Redis refused the job: {fault.__cause__}") from fault
        check_accepted(sending, verdict, self.settings)
        return AsyncJob(sending.job_id, self)

    async def enqueue_many(self, requests: Iterable[Request]) -> list[AsyncJob]:
        """Send many jobs, `request.CHUNK` per round trip; see `Client.enqueue_many`."""
        return [job for chunk in chunks(requests, self.settings) for job in await self._send_chunk(chunk)]

    async def get(self, job_id: str) -> AsyncJob:
        """The job with this id; see `Client.get`."""
        return await AsyncJob(job_id, self).refresh()

    async def record(self, job_id: str) -> JobRecord:
        """What Redis holds of a job now; see `Client.record`."""
        key = self.keys.job(check_name("job id", job_id))
        return found(job_id, await self.store.hash(key), self.settings)

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
        check_cancelled(job_id, await self.store.run(cancel_call(job_id, self.settings)), self.settings)

    async def _send_chunk(self, chunk: list[Sending]) -> list[AsyncJob]:
        answers = await self.store.run_many(together(chunk, self.settings))
        check_all_accepted(chunk, answers, self.settings)
        return [AsyncJob(sending.job_id, self) for sending in chunk]
