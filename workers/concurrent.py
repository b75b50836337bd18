"""A worker that runs many `async def` jobs at once: `workers.concurrency`. Its promises are those of the plain loop."""

from __future__ import annotations

import asyncio
import importlib
import math
import random
import time
from typing import Any

from rqsup.errors import RedisUnavailable
from rqsup.store import scripts
from rqsup.store.scripts import Claim, Settled, Settlement
from rqsup.store.wire import LATE_S, Wire
from rqsup.task import Task
from rqsup.workers.crew import Crew
from rqsup.workers.line import Line, State
from rqsup.workers.loop import UNREGISTERED_S, Loop
from rqsup.workers.output import Voice
from rqsup.workers.slot import Order, Spent, WorkerState

#: Seconds between two looks at what sends no event: the title, late answers, jobs that ignore their end.
TICK_S = 1.0


class ConcurrentLoop(Loop):
    """Takes jobs from Redis and runs up to `workers.concurrency` of them at once.

    One coroutine, `_work`, turns whenever something happened, and waits for nothing else. In each turn it

    1. heeds orders and takes in answers;
    2. begins the jobs that it holds. One whose task is not `async def`, has isolation or limits, or is on its last try, waits
       until nothing else runs here, and is then run as by the plain loop, outside of the event loop;
    3. asks Redis for one thing at a time: to settle what has ended, together with new jobs for the places that are free.
    4. While there are free places and no job is ready, it waits for a hand-over on a connection of its own, the ear.

    Running jobs notice nothing of a fault of the connections.
    """

    def __init__(self, *, ear: Wire, voice: Voice, **common: Any) -> None:
        super().__init__(**common)
        self._events = _make_event_loop()
        self._changed = asyncio.Event()
        self._line = Line(self._events, self._wire, self._changed.set)
        self._ear = Line(self._events, ear, self._changed.set)
        self._crew = Crew(
            events=self._events, settings=self._settings, slot=self._slot, voice=voice, runner=self._runner, log=self._log,
            stopping=self._leaving, on_end=self._take_end,
        )  # fmt: skip
        self._ordered = True
        self._ticking = False
        #: Jobs to ask for at most: few until it has seen that they can run beside each other.
        self._pace = 1
        self._pause_s = 0.0
        self._opened_at = math.inf
        #: When the answer to the call under way is late; None = none is under way.
        self._late_at: float | None = None
        #: No call before this time.
        self._rest_until = 0.0
        #: The claim under way asks to be put on the waiting list, if there is no job.
        self._asked_to_wait = False
        #: It is on the waiting list, and the ear waits or is about to; then: until when its answer has to come.
        self._listening = False
        self._ear_timer: asyncio.TimerHandle | None = None
        #: Something may lie in its lists that it does not know of.
        self._resume = True

    def run(self) -> None:
        """Work until the master orders to leave.

        Raises:
            MasterGone: the master died; nobody renews this worker's lease any more.
        """
        self._events.add_reader(self._channel.fileno(), self._note_order)
        while self._turn_events():
            self._run_alone()
        self._tell_end()

    def _turn_events(self) -> bool:
        """Turn the event loop until the jobs held have to run alone; False when it is time to leave."""
        work = self._events.create_task(self._work())
        while True:
            try:
                return self._events.run_until_complete(work)
            except (SystemExit, KeyboardInterrupt) as fault:
                if work.done():
                    raise
                # A callback of some job, outside of all tasks: nobody's end, and not this worker's.
                self._log.warning("a job's callback raised", error=type(fault).__name__)

    async def _work(self) -> bool:
        while True:
            self._changed.clear()
            try:
                self._heed()
                self._take_in()
                self._begin_held()
                if self._leaving() and not (self._crew or self._settling.unsent or self._settling.awaited):
                    return False
                if self._held and not self._crew and self._late_at is None and not self._leaving():
                    return True
                self._ask()
            except RedisUnavailable as fault:
                self._cut(fault)
                continue
            await self._changed.wait()

    def _run_alone(self) -> None:
        """Run what is held in the plain loop's way, one after the other."""
        try:
            while self._held and not self._leaving():
                self._run_one(self._held.popleft())
            # Some may have been claimed ahead.
            self._held.extend(self._settle_all(claim=0))
        except RedisUnavailable as fault:
            self._cut(fault)

    def _note_order(self) -> None:
        self._ordered = True
        self._changed.set()

    def _heed(self) -> None:
        ordered, self._ordered = self._ordered, False
        if ordered:
            self._read_orders()
        if self._listening and (ordered or self._leaving()):
            # Whatever it is about: off the waiting list, and on it again if there is a reason.
            self._ear.close()
            self._stop_listening()
        if ordered and self._slot.order == Order.ABANDON:
            self._crew.abandon()

    def _begin_held(self) -> None:
        """Begin what may run beside others; what may not stays held."""
        if not self._held or (self._leaving() and not self._crew) or self._slot.order == Order.ABANDON:
            return
        held, alone = list(self._held), self._fresh and len(self._held) + len(self._crew) == 1
        self._held.clear()
        for job in held:
            found = self._runner.look_up(job)
            if isinstance(found, Settlement):
                self._settling.add(found)
            elif self._is_last_try(job) and not alone:
                # It goes back when the others have ended; a fresh worker claims one job at first.
                self._runner.spent = self._runner.spent or Spent.LAST_TRY
            elif self._is_last_try(job) or not _may_share(found[1]):
                self._held.append(job)
            else:
                self._fresh = False
                if not self._crew:
                    self._alarm.show("busy")
                self._crew.begin(job, *found)
                self._tick_on()
        self._pace = max(1, self._prefetch.count) if self._held else min(2 * self._pace, self._places)

    @property
    def _places(self) -> int:
        return self._settings.workers.concurrency

    def _take_end(self, settlement: Settlement | None) -> None:
        if settlement is not None:
            self._settling.add(settlement)
        self._changed.set()

    def _ask(self) -> None:
        """Send the next call, if one is due and none is under way."""
        if self._line.state is State.DOWN:
            # While Redis is away, this is the worker's only sign of life.
            self._slot.turned = time.monotonic()
            self._opened_at, self._resume = math.inf, True
            # Half fixed, half random: workers that lost Redis together do not come back together.
            self._line.open(self._pause_s * (0.5 + random.random() / 2))  # noqa: S311 - spreads load, hides nothing
        elif self._line.state is State.UP:
            self._opened_at = min(self._opened_at, time.monotonic())
            if self._listening and self._ear_timer is None and self._ear.state is State.UP:
                self._wait_by_ear()
            if self._late_at is None and time.monotonic() >= self._rest_until:
                self._send_next()

    def _send_next(self) -> None:
        free = self._free()
        if self._settling.unsent:
            # On the waiting list, it gets its jobs by hand; and what may lie in its lists comes first.
            self._settling.send(0 if self._listening or self._resume else free)
        elif self._resume or (free and not self._listening):
            resume, self._resume, self._asked_to_wait = self._resume, False, free > 0
            in_hand = self._crew.ids() + [job.id for job in self._held] if resume else ()
            self._wire.send(scripts.claim(
                self._keys.root, worker=self._worker, count=free, lanes=self._lanes, queues=self._settings.workers.queues,
                resume=resume, wait=self._asked_to_wait, in_hand=in_hand,
            ))  # fmt: skip
        else:
            if not self._crew:
                self._enter(WorkerState.IDLE if self._slot.order == Order.WORK else WorkerState.QUIET)
            return
        self._late_at = time.monotonic() + self._settings.redis.socket_timeout
        self._tick_on()

    def _free(self) -> int:
        """Jobs to ask for."""
        if self._slot.order != Order.WORK or self._leaving() or self._held:
            return 0
        return max(0, min(1 if self._fresh else self._pace, self._places - len(self._crew)))

    def _take_in(self) -> None:
        """Take in the answers that have come."""
        for answer in self._line.take():
            self._late_at = None
            if isinstance(answer, Settled):
                self._held.extend(self._settling.take(answer))
            else:
                self._take_claim(answer)
        if self._late_at is not None and time.monotonic() >= self._late_at:
            raise RedisUnavailable("Redis does not answer")
        if self._ear.take():
            self._stop_listening()

    def _take_claim(self, claim: Claim) -> None:
        self._settling.report(claim.faults)
        self._held.extend(claim.jobs)
        if not claim.registered:
            # The master's first beat is on the way, or another master took this worker for dead.
            self._rest_until, self._resume = time.monotonic() + UNREGISTERED_S, True
            self._events.call_later(UNREGISTERED_S, self._changed.set)
        elif not claim.jobs and self._asked_to_wait:
            if self._free():
                self._listening = True
                self._ear.open()
            else:
                # An order came meanwhile: off the waiting list again.
                self._resume = True

    def _wait_by_ear(self) -> None:
        block_s = self._settings.workers.block_timeout
        self._ear.wire.start_move(self._keys.inbox(self._worker), self._keys.processing(self._worker), block_s)
        late = "the connection to Redis is half-open: a blocking command did not come back"
        self._ear_timer = self._events.call_later(block_s + LATE_S, self._ear.fail, late)

    def _stop_listening(self) -> None:
        if self._ear_timer is not None:
            self._ear_timer.cancel()
        self._ear_timer, self._listening, self._resume = None, False, True

    def _cut(self, fault: RedisUnavailable) -> None:
        """Give both connections up; what has no answer is kept, and sent again on the next."""
        self._log.warning("Redis is away", error=str(fault))
        self._line.close()
        self._ear.close()
        self._forget_connection()
        self._stop_listening()
        self._late_at = None
        self._pause_s = self._next_pause(self._pause_s, self._opened_at)

    def _tick_on(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._events.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self._crew:
            self._alarm.show(f"{len(self._crew)} jobs" if len(self._crew) > 1 else "1 job")
        self._crew.look_after(time.monotonic())
        if self._crew.is_restless or self._late_at is not None:
            self._tick_on()
        # Its turn looks for a late answer, and whether the worker is spent.
        self._changed.set()


def _may_share(task: Task[..., Any]) -> bool:
    """True when the task's jobs may run beside others."""
    return task.is_async and task.isolation == "inline" and task.limits is None


def find_uvloop() -> Any:
    """The faster event loop, if it is installed. Imported before a fork, all workers share it."""
    try:
        return importlib.import_module("uvloop")
    except ImportError:
        return None


def _make_event_loop() -> asyncio.AbstractEventLoop:
    uvloop = find_uvloop()
    loop: asyncio.AbstractEventLoop = asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()
    return loop
