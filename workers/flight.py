"""Jobs under way at the same time on one event loop, and which of them is at work at each moment.

Only one coroutine executes at a time, between two of its `await`s: a step. Each step is bracketed in the slot, so that
the master knows whose step it was when the worker dies or hangs in it, and in the voice, so that what a job
prints is its own. The tasks that a job starts in the loop count as the job.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from rqsup.envelope import Envelope
from rqsup.errors import JobShutdown
from rqsup.store.scripts import Claimed, Settlement
from rqsup.task import Task
from rqsup.workers.output import Voice
from rqsup.workers.slot import Slot

#: Of whichever coroutine executes; what a job starts inherits it, as it does `current_job()`.
_flight: ContextVar[Flight] = ContextVar("rqsup_flight")


@dataclass(eq=False, slots=True)
class Flight:
    """One job under way."""

    job: Claimed
    envelope: Envelope
    task: Task[..., Any]
    started: float
    soft_deadline: float
    hard_deadline: float
    #: Runs the job's function.
    pilot: asyncio.Task[None] | None = None
    #: Tasks of the loop that belong to it, the pilot included, while they are not done.
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    #: How it ended; None = it has not, or was given up.
    settlement: Settlement | None = None
    #: It was told to give up: the next cancellation of its pilot becomes a JobShutdown.
    abandoned: bool = False
    #: What came out of one of its tasks that would end the worker's own loop.
    fault: BaseException | None = None

    def abandon(self) -> None:
        """Have it give up, because its worker has to end."""
        if self.pilot is not None:
            self.abandoned = True
            self.pilot.cancel()

    def break_off(self, fault: BaseException) -> None:
        """End it by what one of its tasks raised."""
        self.fault = self.fault or fault
        if self.pilot is not None:
            self.pilot.cancel()


class Tower:
    """Knows all flights, and tells the slot which one is at work. A step costs two stores while it is the same one's."""

    def __init__(self, slot: Slot, voice: Voice) -> None:
        self._slot = slot
        self._voice = voice
        self._pid = os.getpid()
        #: In the order of their start.
        self.flights: dict[Flight, None] = {}
        self._shown: Flight | None = None
        #: One that has ignored its end: it stays in the slot until the master ends the worker.
        self._doomed: Flight | None = None

    def take_off(self, flight: Flight) -> None:
        """One more is under way."""
        self.flights[flight] = None
        slot = self._slot
        slot.jobs = len(self.flights)
        slot.last_deadline = max(slot.last_deadline, flight.hard_deadline)
        if self._shown is None:
            self._show(flight)

    def land(self, flight: Flight) -> None:
        """One has ended."""
        del self.flights[flight]
        self._slot.jobs = len(self.flights)
        if self._doomed is flight:
            self._doomed = None
            self._slot.at_work = 0
        if self._shown is flight:
            # The deadline of one that has ended would be nobody's.
            self._show(next(iter(self.flights), None))
        if not self.flights:
            self._slot.last_deadline = 0.0

    def doom(self, now: float) -> None:
        """Show the master a flight that is past its hard deadline although the loop turns: it has ignored its end."""
        if self._doomed is None:
            self._doomed = next((flight for flight in self.flights if now >= flight.hard_deadline), None)
            if self._doomed is not None:
                self._show(self._doomed)
                self._slot.at_work = 1

    def make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        """The loop's factory of tasks: those of a job are bracketed, and belong to it."""
        context = options.get("context")
        flight = _flight.get(None) if context is None else context.get(_flight)
        if flight is None:
            return asyncio.Task(coroutine, loop=loop, **options)
        task = asyncio.Task(_Steps(self, flight, coroutine), loop=loop, **options)
        flight.tasks.add(task)
        task.add_done_callback(flight.tasks.discard)
        return task

    def enter(self, flight: Flight) -> None:
        """A step of this one begins."""
        if self._shown is not flight and self._doomed is None and flight in self.flights:
            self._show(flight)
        if self._shown is flight:
            self._slot.at_work = 1

    def leave(self) -> None:
        """The step is over."""
        if os.getpid() != self._pid:
            # A process that the job forked and did not end: it may neither turn this loop nor speak on its connections.
            os._exit(1)
        if self._doomed is None:
            self._slot.at_work = 0

    def _show(self, flight: Flight | None) -> None:
        if self._shown is not None:
            self._voice.end()
        self._shown = flight
        if flight is None:
            self._slot.end()
            return
        self._slot.begin(
            flight.job.id.encode(), flight.task.name.encode(), started=flight.started,
            soft_deadline=flight.soft_deadline, hard_deadline=flight.hard_deadline,
        )  # fmt: skip
        self._voice.begin(flight.job.id, flight.task.name)


def board(flight: Flight) -> None:
    """Make the current context this flight's."""
    _flight.set(flight)


class _Steps(Coroutine[Any, Any, Any]):
    """A job's coroutine, each step of it bracketed."""

    __slots__ = ("_flight", "_inner", "_tower")

    def __init__(self, tower: Tower, flight: Flight, inner: Coroutine[Any, Any, Any]) -> None:
        self._tower = tower
        self._flight = flight
        self._inner = inner

    def send(self, value: Any) -> Any:
        """One step."""
        return self._step(self._inner.send, value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        """One step that begins with an exception."""
        fault = kind if isinstance(kind, BaseException) else value if value is not None else kind()
        flight = self._flight
        if flight.abandoned and isinstance(fault, asyncio.CancelledError) and self._is_pilot():
            # Once: what cancels it later means what it says.
            flight.abandoned = False
            fault = JobShutdown("this worker has to end now; the job goes back to its queue")
        return self._step(self._inner.throw, fault.with_traceback(trace) if trace else fault)

    def close(self) -> None:
        """End a coroutine that never runs again."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def _step(self, go: Callable[[Any], Any], value: Any) -> Any:
        self._tower.enter(self._flight)
        try:
            return go(value)
        except (SystemExit, KeyboardInterrupt) as fault:
            # asyncio would have it end the loop, and with it all other jobs: it ends its own.
            self._flight.break_off(fault)
            raise asyncio.CancelledError from fault
        finally:
            self._tower.leave()

    def _is_pilot(self) -> bool:
        pilot = self._flight.pilot
        return pilot is not None and pilot is asyncio.current_task()
