"""One job, from its bytes to how it ended. Nothing that a job does or raises gets past this file."""

from __future__ import annotations

import functools
import inspect
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from rqsup import context
from rqsup.context import JobContext
from rqsup.envelope import NAME, Envelope, decode
from rqsup.errors import EnvelopeError, ForkRefused, JobShutdown, JobTimeout, SandboxIncomplete
from rqsup.settings import Settings
from rqsup.store.scripts import Claimed, Settlement
from rqsup.task import Task, find_task, task_names
from rqsup.workers.alarm import Alarm
from rqsup.workers.fence import Fence
from rqsup.workers.isolation.apart import Apart, Attempt, Belongings, read_report
from rqsup.workers.isolation.fork import Ending
from rqsup.workers.output import Voice
from rqsup.workers.slot import Order, Slot, Spent
from rqsup.workers.wording import describe, plain

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rqsup.workers.coroutines import Coroutines

#: Longest delay of a retry, seconds: about 3 years.
LONGEST_DELAY_S = 1e8


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

    def __init__(
        self, *, settings: Settings, place: Place, slot: Slot, alarm: Alarm, log: Any,
        voice: Voice | None = None, belongings: Belongings | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._place = place
        self._slot = slot
        self._alarm = alarm
        self._log = log
        self._voice = voice or Voice()
        self._coroutines: Coroutines | None = None
        self._isolation = Apart(settings, slot, alarm, belongings or Belongings())
        #: The latest job ran in a process of its own.
        self.ran_apart = False
        #: Why this process should run no other job.
        self.spent = Spent.NO

    def run(self, job: Claimed, stopping: Callable[[], bool]) -> Settlement | None:
        """Run one job and say how it ended. Never raises.

        None when it was given up because the worker has to end, or when it could not begin here, which `spent` tells.
        """
        found = self.look_up(job)
        if isinstance(found, Settlement):
            return found
        envelope, task = found
        self.ran_apart = task.isolation != "inline"
        if self.ran_apart:
            return self._apart(job, envelope, task, stopping)
        return self._attempt(job, envelope, task, stopping)

    def look_up(self, job: Claimed) -> tuple[Envelope, Task[..., Any]] | Settlement:
        """What the job asks for; or how it ended, because nobody can tell or it is not known here."""
        try:
            envelope = decode(job.envelope)
        except EnvelopeError as fault:
            return self._bury(job, None, "EnvelopeError", plain(str(fault)))
        if not NAME.fullmatch(job.id):
            # It would be cut in the slot, and a crash could not be charged to it.
            return self._bury(job, envelope, "EnvelopeError", "the job's id is outside the alphabet of ids")
        task = find_task(envelope.task)
        if task is None:
            known = ", ".join(task_names()[:10]) or "none"
            message = f"no task {envelope.task!r} in this application; known: {known}"
            return self._defer(job, envelope, "UnknownTask", message)
        return envelope, task

    def stands_alone(self, job: Claimed) -> bool:
        """Whether it runs in a process of its own, or under limits that hold for what this worker does meanwhile, too."""
        try:
            task = find_task(decode(job.envelope).task)
        except EnvelopeError:
            return False
        return task is not None and (task.isolation != "inline" or task.limits is not None)

    def _attempt(
        self, job: Claimed, envelope: Envelope, task: Task[..., Any], stopping: Callable[[], bool]
    ) -> Settlement | None:
        """Run the job in this process."""
        try:
            result = self._call(job, envelope, task, stopping)
        except JobShutdown as fault:
            return None if stopping() else self.failed(job, envelope, task, fault)
        except BaseException as fault:  # noqa: BLE001 - a job's SystemExit or KeyboardInterrupt is the job's end, not ours
            if isinstance(fault, JobTimeout):
                self.spent = Spent.SOFT_TIMEOUT
            return self.failed(job, envelope, task, fault)
        return self.succeeded(job, envelope, result)

    def _apart(
        self, job: Claimed, envelope: Envelope, task: Task[..., Any], stopping: Callable[[], bool]
    ) -> Settlement | None:
        """Run the job in a process of its own, and take over what that process says, or how it died."""
        self._alarm.run_errand()
        started = time.monotonic()
        soft = started + self.timeout_s(envelope, task)
        work = functools.partial(self._attempt_apart, job, envelope, task)
        try:
            self._isolation.refuse_threads()
            ending = self._isolation.run(Attempt(
                task.isolation, task.name, job.id, started, soft, soft + self._settings.workers.kill_grace, work
            ))  # fmt: skip
        except (ForkRefused, OSError, SandboxIncomplete) as fault:
            if isinstance(fault, ForkRefused) and self._isolation.blames_another():
                self._log.warning("worker leaves, to be replaced", job_id=job.id, reason=str(fault))
                self.spent = Spent.THREADS
                return None
            return self.failed(job, envelope, task, fault)
        if ending.answer is None:
            self._voice.broke_off()
        report = read_report(ending.answer) if ending.answer is not None else None
        if report is None or (report.outcome == "give_up" and not stopping()):
            return self._crashed(job, envelope, ending)
        if report.outcome == "give_up":
            return None
        counter = {"succeed": "succeeded", "retry": "retried", "bury": "buried"}[report.outcome]
        setattr(self._slot, counter, getattr(self._slot, counter) + 1)
        kept_ms = round(self._settings.workers.result_ttl * 1000)
        # Not the process's own word: a forged time could be one that Redis refuses, again and again.
        number = kept_ms if report.outcome == "succeed" else report.number
        return Settlement(job.id, job.token, report.outcome, bytes(report.payload), number)

    def _attempt_apart(self, job: Claimed, envelope: Envelope, task: Task[..., Any]) -> Settlement | None:
        """Run the job in this process, which was forked for it."""
        # Plainly: each page that is touched in a fresh fork costs a copy, and `dataclasses.replace` touches many.
        place = self._place
        self._place = Place(place.worker, place.number, place.host, os.getpid(), place.generation)
        self._slot = mirror = self._isolation.mirror
        # The worker's event loop stays untouched: its epoll is the worker's own, and closing it would be felt there.
        self._coroutines, self._workers_coroutines = None, self._coroutines
        return self._attempt(job, envelope, task, lambda: bool(mirror.order >= Order.LEAVE))

    def timeout_s(self, envelope: Envelope, task: Task[..., Any]) -> float:
        """Seconds that the attempt may take."""
        return envelope.timeout_s or task.timeout_s or self._settings.workers.job_timeout

    def _call(self, job: Claimed, envelope: Envelope, task: Task[..., Any], stopping: Callable[[], bool]) -> Any:
        timeout_s = self.timeout_s(envelope, task)
        token = context.enter(self.context_of(job, envelope, stopping))
        fence = None if task.limits is None else Fence(task.limits)
        started = time.monotonic()
        soft = started + timeout_s
        self._slot.begin(
            job.id.encode(), task.name.encode(), started=started, soft_deadline=soft,
            hard_deadline=soft + self._settings.workers.kill_grace,
        )  # fmt: skip
        self._voice.begin(job.id, task.name)
        try:
            try:
                self._alarm.arm(task.name, job.id, timeout_s)
                if fence is not None:
                    self._alarm.reminder = fence.remind
                    fence.close()
                result = task.function(*envelope.args, **envelope.kwargs)
                return self._run_coroutine(result, timeout_s) if inspect.iscoroutine(result) else result
            finally:
                self._alarm.disarm()
                if fence is not None:
                    fence.open()
        finally:
            if os.getpid() != self._place.pid:
                # A process that the job forked and did not end: it may not act as this worker.
                os._exit(1)
            # Again: the first may have been broken off by a JobTimeout just before it took effect.
            self._alarm.disarm()
            if fence is not None:
                fence.open()
                self._alarm.reminder = None
            self._voice.end()
            self._slot.end()
            if self._alarm.has_raised:
                # Also when the job swallowed it: it was broken off somewhere.
                self.spent = Spent.SOFT_TIMEOUT
            context.leave(token)

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        if self._coroutines is None:
            # With asyncio, 3 MB; the zygote has it where a task is `async def`.
            from rqsup.workers.coroutines import Coroutines

            self._coroutines = Coroutines(self._alarm, self._settings.workers.kill_grace)
        return self._coroutines.run(coroutine, timeout_s)

    def context_of(
        self, job: Claimed, envelope: Envelope, stopping: Callable[[], bool], since: float = math.inf
    ) -> JobContext:
        """What the handler can ask for; `since` when it runs, for a job that is not its worker's only one."""
        slot = self._slot
        return JobContext(
            id=job.id,
            task=envelope.task,
            queue=envelope.queue,
            attempt=job.attempt,
            token=job.token,
            worker=self._place.worker,
            generation=self._place.generation,
            # Made only when asked for: binding takes longer than all else of the context.
            _make_log=lambda: self._log.bind(
                job_id=job.id, task=envelope.task, queue=envelope.queue, attempt=job.attempt
            ),
            _lease_left=lambda: slot.lease_left(since),
            _stopping=stopping,
        )

    def succeeded(self, job: Claimed, envelope: Envelope, result: Any) -> Settlement:
        """How an attempt ended that returned."""
        limit = self._settings.limits.result_bytes
        try:
            payload = msgspec.json.encode(result)
        except (TypeError, ValueError, RecursionError) as fault:
            # Not retried: the work is done, and doing it again would end in the same error.
            return self._bury(job, envelope, "ResultError", plain(f"the result is no JSON value: {fault}"))
        if len(payload) > limit:
            message = f"the result has {len(payload):,} bytes, allowed are {limit:,} (limits.result_bytes)"
            return self._bury(job, envelope, "ResultError", message)
        self._slot.succeeded += 1
        return Settlement(job.id, job.token, "succeed", payload, round(self._settings.workers.result_ttl * 1000))

    def failed(self, job: Claimed, envelope: Envelope, task: Task[..., Any], fault: BaseException) -> Settlement:
        """How an attempt ended that raised."""
        name = type(fault).__name__
        message, stack = describe(fault)
        limit = envelope.max_attempts or task.max_attempts
        if job.errors + 1 >= limit:
            return self._bury(job, envelope, name, message, stack)
        delay_s = min(LONGEST_DELAY_S, task.backoff.delay_s(job.errors + 1, random.random()))  # noqa: S311 - spreads retries, hides nothing
        self._slot.retried += 1
        self._log.info(
            "job failed, will retry",
            job_id=job.id,
            task=task.name,
            error=name,
            message=message,
            delay_s=round(delay_s, 1),
        )
        return Settlement(job.id, job.token, "retry", self._error(job, name, message, stack), round(delay_s * 1000))

    def _defer(self, job: Claimed, envelope: Envelope, name: str, message: str) -> Settlement:
        """Give the job back for newer code; when none comes for long enough, settle.lua buries it."""
        patience_ms = round(self._settings.workers.unknown_task_patience * 1000)
        self._log.warning("task unknown", job_id=job.id, task=envelope.task, patience_ms=patience_ms)
        return Settlement(job.id, job.token, "defer", self._error(job, name, message, ""), patience_ms)

    def _bury(self, job: Claimed, envelope: Envelope | None, name: str, message: str, stack: str = "") -> Settlement:
        self._slot.buried += 1
        task = envelope.task if envelope else None
        self._log.warning("job buried", job_id=job.id, task=task, error=name, message=message)
        return Settlement(job.id, job.token, "bury", self._error(job, name, message, stack), 0)

    def _crashed(self, job: Claimed, envelope: Envelope, ending: Ending) -> Settlement:
        self._voice.end_abruptly()
        cause = ending.cause or "its process gave an answer that is none"
        self._slot.crashed += 1
        self._log.warning("job crashed", job_id=job.id, task=envelope.task, cause=cause, pid=ending.pid)
        evidence = {
            "message": cause, "worker": self._place.worker, "host": self._place.host, "pid": ending.pid,
            "at_ms": int(time.time() * 1000),
        }  # fmt: skip
        if ending.stack:
            evidence["stack"] = ending.stack
        payload = msgspec.json.encode(evidence)
        return Settlement(job.id, job.token, "crash", payload, self._settings.workers.crash_limit)

    def _error(self, job: Claimed, name: str, message: str, stack: str) -> bytes:
        place = self._place
        return msgspec.json.encode({
            "type": name, "message": message, "traceback": stack, "attempt": job.attempt, "at_ms": int(time.time() * 1000),
            "worker": place.worker, "host": place.host, "pid": place.pid, "generation": place.generation,
        })  # fmt: skip
