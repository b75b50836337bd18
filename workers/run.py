"""One job, from its bytes to how it ended. Nothing that a job does or raises gets past this file."""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from rqsup import context
from rqsup.config import Settings
from rqsup.context import JobContext
from rqsup.envelope import Envelope, decode
from rqsup.errors import EnvelopeError, JobTimeout
from rqsup.store.scripts import Claimed, Settlement
from rqsup.task import Task, find_task, task_names
from rqsup.workers.alarm import Alarm
from rqsup.workers.slot import Slot

#: Most characters of a traceback kept with a job: its end, where the error is.
TRACEBACK_CHARS = 16_000
#: Most characters of an error's message.
MESSAGE_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where this worker runs, for the record of a failure."""

    worker: str
    number: int
    host: str
    pid: int
    generation: int


class Runner:
    """Runs claimed jobs in this process, one at a time.

    The stages: decode the envelope, find the task, call its function under the alarm, encode what it
    returned. The first stage that fails decides how the attempt ends.
    """

    def __init__(self, *, settings: Settings, place: Place, slot: Slot, alarm: Alarm, log: Any) -> None:
        self._settings = settings
        self._place = place
        self._slot = slot
        self._alarm = alarm
        self._log = log
        self._loop: asyncio.Runner | None = None

    def run(self, job: Claimed, stopping: Callable[[], bool]) -> Settlement:
        """Run one job and say how it ended. Never raises."""
        try:
            envelope = decode(job.envelope)
        except EnvelopeError as fault:
            return self._bury(job, None, "EnvelopeError", str(fault))
        task = find_task(envelope.task)
        if task is None:
            known = ", ".join(task_names()[:10]) or "none"
            return self._bury(job, envelope, "UnknownTask", f"no task {envelope.task!r} in this application; known: {known}")
        try:
            result = self._call(job, envelope, task, stopping)
        except BaseException as fault:  # noqa: BLE001 - a job's SystemExit or KeyboardInterrupt is the job's end, not ours
            return self._failed(job, envelope, task, fault)
        return self._succeeded(job, envelope, result)

    def _call(self, job: Claimed, envelope: Envelope, task: Task[..., Any], stopping: Callable[[], bool]) -> Any:
        timeout_s = envelope.timeout_s or task.timeout_s or self._settings.workers.job_timeout
        token = context.enter(self._context(job, envelope, stopping))
        started = time.monotonic()
        soft = started + timeout_s
        self._slot.begin(
            job.id.encode(), task.name.encode(), started=started, soft_deadline=soft,
            hard_deadline=soft + self._settings.workers.kill_grace,
        )  # fmt: skip
        try:
            self._alarm.arm(task.name, job.id, timeout_s)
            if task.is_async:
                return self._run_async(task.function(*envelope.args, **envelope.kwargs), timeout_s)
            return task.function(*envelope.args, **envelope.kwargs)
        finally:
            self._alarm.disarm()
            self._slot.end()
            context.leave(token)

    def _run_async(self, coroutine: Any, timeout_s: float) -> Any:
        """Run a coroutine to its end, on one event loop for all of this worker's jobs."""
        if self._loop is None:
            self._loop = asyncio.Runner()

        async def bounded() -> Any:
            try:
                # Cancelling is gentler than the alarm: the coroutine's cleanup runs. So it comes first.
                async with asyncio.timeout(timeout_s * 0.999):
                    return await coroutine
            except TimeoutError as fault:
                raise JobTimeout(f"allowed are {timeout_s:g} s") from fault

        return self._loop.run(bounded())

    def _context(self, job: Claimed, envelope: Envelope, stopping: Callable[[], bool]) -> JobContext:
        slot = self._slot
        return JobContext(
            id=job.id,
            task=envelope.task,
            queue=envelope.queue,
            attempt=job.attempt,
            token=job.token,
            worker=self._place.worker,
            log=self._log.bind(job_id=job.id, task=envelope.task, queue=envelope.queue, attempt=job.attempt),
            _lease_left=lambda: slot.lease_until - time.monotonic(),
            _stopping=stopping,
        )

    def _succeeded(self, job: Claimed, envelope: Envelope, result: Any) -> Settlement:
        limit = self._settings.limits.result_bytes
        try:
            payload = msgspec.json.encode(result)
        except (TypeError, ValueError, RecursionError) as fault:
            # Not retried: the work is done, and doing it again would end in the same error.
            return self._bury(job, envelope, "ResultError", f"the result is no JSON value: {fault}")
        if len(payload) > limit:
            message = f"the result has {len(payload):,} bytes, allowed are {limit:,} (limits.result_bytes)"
            return self._bury(job, envelope, "ResultError", message)
        self._slot.succeeded += 1
        return Settlement(job.id, job.token, "succeed", payload, round(self._settings.workers.result_ttl * 1000))

    def _failed(self, job: Claimed, envelope: Envelope, task: Task[..., Any], fault: BaseException) -> Settlement:
        name, message = type(fault).__name__, str(fault)[:MESSAGE_CHARS]
        stack = "".join(traceback.format_exception(fault))[-TRACEBACK_CHARS:]
        limit = envelope.max_attempts or task.max_attempts
        if job.errors + 1 >= limit:
            return self._bury(job, envelope, name, message, stack)
        delay_s = task.backoff.delay_s(job.errors + 1, random.random())  # noqa: S311 - spreads retries, hides nothing
        self._slot.retried += 1
        self._log.info("job failed, will retry", job_id=job.id, task=task.name, error=name, message=message, delay_s=round(delay_s, 1))
        return Settlement(job.id, job.token, "retry", self._error(job, name, message, stack), round(delay_s * 1000))

    def _bury(self, job: Claimed, envelope: Envelope | None, name: str, message: str, stack: str = "") -> Settlement:
        self._slot.buried += 1
        task = envelope.task if envelope else None
        self._log.warning("job buried", job_id=job.id, task=task, error=name, message=message)
        return Settlement(job.id, job.token, "bury", self._error(job, name, message, stack), 0)

    def _error(self, job: Claimed, name: str, message: str, stack: str) -> bytes:
        place = self._place
        return msgspec.json.encode({
            "type": name, "message": message, "traceback": stack, "attempt": job.attempt, "at_ms": int(time.time() * 1000),
            "worker": place.worker, "host": place.host, "pid": place.pid, "generation": place.generation,
        })  # fmt: skip
