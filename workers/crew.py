"""The jobs that run at the same time in one worker: begins them, bounds them, tells how they ended, cleans up after them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from typing import Any

from rqsup import context
from rqsup.envelope import Envelope
from rqsup.errors import JobShutdown
from rqsup.settings import Settings
from rqsup.store.scripts import Claimed, Settlement
from rqsup.task import Task
from rqsup.workers.coroutines import within
from rqsup.workers.flight import Flight, Tower, board
from rqsup.workers.output import Voice
from rqsup.workers.run import Runner
from rqsup.workers.slot import Slot, Spent


class Crew:
    """Runs jobs on an event loop. `on_end` gets how each one ended; None = it was given up, because the worker has to end."""

    def __init__(
        self, *, events: asyncio.AbstractEventLoop, settings: Settings, slot: Slot, voice: Voice, runner: Runner, log: Any,
        stopping: Callable[[], bool], on_end: Callable[[Settlement | None], None],
    ) -> None:  # fmt: skip
        self._events = events
        self._kill_grace_s = settings.workers.kill_grace
        self._runner = runner
        self._log = log
        self._stopping = stopping
        self._on_end = on_end
        self._tower = Tower(slot, voice)
        events.set_task_factory(self._tower.make_task)
        #: Tasks that ended jobs left behind, and since when.
        self._strays: dict[asyncio.Task[Any], float] = {}

    def __len__(self) -> int:
        return len(self._tower.flights)

    @property
    def is_restless(self) -> bool:
        """True while something has to be looked at now and then."""
        return bool(self._tower.flights or self._strays)

    def ids(self) -> list[str]:
        """The jobs under way."""
        return [flight.job.id for flight in self._tower.flights]

    def begin(self, job: Claimed, envelope: Envelope, task: Task[..., Any]) -> None:
        """Begin one more."""
        started = time.monotonic()
        soft = started + self._runner.timeout_s(envelope, task)
        flight = Flight(job, envelope, task, started, soft, soft + self._kill_grace_s)
        own = contextvars.copy_context()
        own.run(board, flight)
        own.run(context.enter, self._runner.context_of(job, envelope, self._stopping, started))
        flight.pilot = self._events.create_task(self._fly(flight), context=own)
        self._tower.take_off(flight)
        flight.pilot.add_done_callback(functools.partial(self._landed, flight))

    def abandon(self) -> None:
        """Have all of them give up, by a JobShutdown at their next step."""
        for flight in self._tower.flights:
            flight.abandon()

    def look_after(self, now: float) -> None:
        """Show the master what ignores its end, and cancel again what ended jobs left behind."""
        self._tower.doom(now)
        self._strays = {task: since for task, since in self._strays.items() if not task.done()}
        for task, since in self._strays.items():
            task.cancel()
            if now - since > self._kill_grace_s and not self._runner.spent:
                self._log.error("a task that a job left behind does not end: worker leaves", task=repr(task))
                self._runner.spent = Spent.COROUTINES

    async def _fly(self, flight: Flight) -> None:
        """Run one job to its end. Nothing that it does or raises gets past here."""
        job, envelope, task = flight.job, flight.envelope, flight.task
        try:
            coroutine = task.function(*envelope.args, **envelope.kwargs)
            result = await within(coroutine, flight.soft_deadline - flight.started)
        except BaseException as fault:  # noqa: BLE001 - a job's SystemExit or CancelledError is the job's end, not ours
            if isinstance(fault, JobShutdown) and self._stopping():
                return
            flight.settlement = self._runner.failed(job, envelope, task, flight.fault or fault)
        else:
            flight.settlement = self._runner.succeeded(job, envelope, result)

    def _landed(self, flight: Flight, pilot: asyncio.Task[None]) -> None:
        self._tower.land(flight)
        # One that was told to give up before its first step has not even begun.
        fault = None if pilot.cancelled() else pilot.exception()
        if fault is not None and not isinstance(fault, JobShutdown):
            self._log.error("a job's end cannot be told: worker leaves", job_id=flight.job.id, error=repr(fault))
            self._runner.spent = self._runner.spent or Spent.COROUTINES
        left = [task for task in flight.tasks if task is not pilot and not task.done()]
        if left:
            self._log.warning("job left tasks behind: they are cancelled", job_id=flight.job.id, tasks=len(left))
            self._strays |= dict.fromkeys(left, time.monotonic())
            for task in left:
                task.cancel()
        self._on_end(flight.settlement)
