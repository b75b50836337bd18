"""A worker that runs many `async def` jobs at once: `workers.concurrency`. Its promises are those of the plain loop."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import importlib
import math
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from rqsup import context
from rqsup.envelope import Envelope
from rqsup.errors import JobShutdown, JobTimeout, RedisUnavailable
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.scripts import Claim, Claimed, Settled, Settlement
from rqsup.store.wire import LATE_S, Wire
from rqsup.task import Task
from rqsup.workers.flight import Flight, Tower, board
from rqsup.workers.loop import UNREGISTERED_S, Loop
from rqsup.workers.output import Voice
from rqsup.workers.slot import Order, Spent, WorkerState

#: Seconds between two looks at what sends no event: the title, late answers, jobs that ignore their end.
TICK_S = 1.0


class Link(enum.Enum):
    """The connection to Redis."""

    DOWN = 1
    OPENING = 2
    UP = 3


class ConcurrentLoop(Loop):
    """Takes jobs from Redis and runs up to `workers.concurrency` of them at once.

    One coroutine, `_work`, turns whenever something happened, and waits for nothing else. In each turn it

    1. heeds orders and takes in answers;
    2. begins the jobs that it holds. One whose task is not `async def`, has isolation or limits, or is on its last try, waits
       until nothing else runs here, and is then run as by the plain loop, outside of the event loop;
    3. asks Redis for one thing at a time: to settle what has ended, together with new jobs for the places that are free.
    4. While there are free places and no job is ready, it waits for a hand-over on a connection of its own, the ear.

    Running jobs notice nothing of a fault of the connections. Opening one is the work of a passing thread: nothing of it blocks the loop.
    """

    def __init__(self, *, ear: Wire, voice: Voice, **common: Any) -> None:
        super().__init__(**common)
        self._ear = ear
        self._places = self._settings.workers.concurrency
        self._tower = Tower(self._slot, voice)
        self._events = _make_event_loop()
        self._events.set_task_factory(self._tower.make_task)
        self._changed = asyncio.Event()
        #: What happened since the last turn: orders, answers, the end of the ear's wait.
        self._ordered = True
        self._answers: list[Any] = []
        self._heard = False
        self._link = Link.DOWN
        self._pause_s = 0.0
        self._opened_at = 0.0
        #: When the answer to the call under way is late; None = none is under way.
        self._late_at: float | None = None
        #: Why the connections cannot be used, found outside of a turn.
        self._broken: RedisUnavailable | None = None
        self._ear_opening = False
        self._again: asyncio.TimerHandle | None = None
        #: The claim under way asks to be put on the waiting list, if there is no job.
        self._asked_to_wait = False
        #: It stands on the waiting list, and the ear waits or is about to.
        self._listening = False
        self._ear_timer: asyncio.TimerHandle | None = None
        #: Something may lie in its lists that it does not know of.
        self._resume = True
        #: Jobs to ask for at most: few until it has seen that they can run beside each other.
        self._pace = 1
        self._ticking = False
        #: Tasks that ended jobs left behind, and since when.
        self._strays: dict[asyncio.Task[Any], float] = {}

    def run(self) -> None:
        """Work until the master orders to leave.

        Raises:
            MasterGone: the master died; nobody renews this worker's lease any more.
        """
        self._events.add_reader(self._channel.fileno(), self._note_order)
        while self._turn_loop():
            self._run_alone()
        self._tell_end()

    def _turn_loop(self) -> bool:
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
                if self._leaving() and not (self._tower.flights or self._unsent or self._sent):
                    return False
                if self._held and not self._tower.flights and self._late_at is None and not self._leaving():
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
            self._settle_all(claim=0)
        except RedisUnavailable as fault:
            self._cut(fault)

    # Orders

    def _note_order(self) -> None:
        self._ordered = True
        self._changed.set()

    def _heed(self) -> None:
        if not self._ordered:
            return
        self._ordered = False
        self._read_orders()
        if self._listening:
            # Whatever it is about: off the waiting list, and on it again if there is a reason.
            self._stop_listening()
        if self._slot.order == Order.ABANDON:
            for flight in self._tower.flights:
                flight.abandon()

    def _stop_listening(self) -> None:
        if not self._ear_opening:
            self._close_ear()
        self._forget_ear()

    def _forget_ear(self) -> None:
        if self._ear_timer is not None:
            self._ear_timer.cancel()
            self._ear_timer = None
        self._listening = self._heard = False
        self._resume = True

    # Jobs

    def _begin_held(self) -> None:
        """Begin what may run beside others; what may not stays held."""
        if not self._held or (self._leaving() and not self._tower.flights) or self._slot.order == Order.ABANDON:
            return
        held, crowd = list(self._held), len(self._held) + len(self._tower.flights)
        self._held.clear()
        for job in held:
            found = self._runner.look_up(job)
            if isinstance(found, Settlement):
                self._unsent.append(found)
            elif self._is_last_try(job) and not (self._fresh and crowd == 1):
                # It goes back with all that is held when the others have ended; a fresh worker claims one job at first.
                self._runner.spent = self._runner.spent or Spent.LAST_TRY
            elif self._is_last_try(job) or not _may_share(found[1]):
                self._held.append(job)
            else:
                self._take_off(job, *found)
        self._pace = max(1, self._prefetch.count) if self._held else min(2 * self._pace, self._places)

    def _take_off(self, job: Claimed, envelope: Envelope, task: Task[..., Any]) -> None:
        self._fresh = False
        started = time.monotonic()
        soft = started + self._runner.timeout_s(envelope, task)
        flight = Flight(job, envelope, task, started, soft, soft + self._settings.workers.kill_grace)
        own = contextvars.copy_context()
        own.run(board, flight)
        own.run(context.enter, self._runner.context_of(job, envelope, self._leaving, started))
        flight.pilot = self._events.create_task(self._fly(flight), context=own)
        self._tower.take_off(flight)
        flight.pilot.add_done_callback(functools.partial(self._landed, flight))
        self._tick_on()

    async def _fly(self, flight: Flight) -> None:
        """Run one job to its end. Nothing that it does or raises gets past here."""
        job, envelope, task = flight.job, flight.envelope, flight.task
        try:
            result = await _bound(task.function(*envelope.args, **envelope.kwargs), flight)
        except BaseException as fault:  # noqa: BLE001 - a job's SystemExit or CancelledError is the job's end, not ours
            if isinstance(fault, JobShutdown) and self._leaving():
                return
            flight.settlement = self._runner.failed(job, envelope, task, flight.fault or fault)
        else:
            flight.settlement = self._runner.succeeded(job, envelope, result)

    def _landed(self, flight: Flight, pilot: asyncio.Task[None]) -> None:
        self._tower.land(flight)
        if not pilot.cancelled() and (fault := pilot.exception()) and not isinstance(fault, JobShutdown):
            self._log.error("a job's end could not be told: it goes back", job_id=flight.job.id, error=repr(fault))
            self._runner.spent = self._runner.spent or Spent.COROUTINES
        if flight.settlement is not None:
            self._unsent.append(flight.settlement)
        left = [task for task in flight.tasks if task is not pilot and not task.done()]
        if left:
            self._log.warning("job left tasks behind: they are cancelled", job_id=flight.job.id, tasks=len(left))
            self._strays |= dict.fromkeys(left, time.monotonic())
            for task in left:
                task.cancel()
        self._changed.set()

    # Redis

    def _ask(self) -> None:
        """Send the next call, if one is due and none is under way."""
        if self._link is not Link.UP:
            self._open()
        elif self._late_at is None:
            self._send_next()

    def _send_next(self) -> None:
        free = self._free()
        if self._unsent:
            # On the waiting list, it gets its jobs by hand; and what may lie in its lists comes first.
            self._send_settlements(0 if self._listening or self._resume else free)
        elif self._resume or (free and not self._listening):
            resume, self._resume = self._resume, False
            self._asked_to_wait = free > 0
            self._wire.send(scripts.claim(
                self._keys.root, worker=self._worker, count=free, lanes=self._lanes, queues=self._settings.workers.queues,
                resume=resume, wait=free > 0, in_hand=self._in_hand() if resume else (),
            ))  # fmt: skip
        else:
            if not self._tower.flights:
                self._enter(WorkerState.IDLE if self._slot.order == Order.WORK else WorkerState.QUIET)
            return
        self._late_at = time.monotonic() + self._settings.redis.socket_timeout
        self._tick_on()

    def _in_hand(self) -> list[str]:
        return [flight.job.id for flight in self._tower.flights] + [job.id for job in self._held]

    def _free(self) -> int:
        """Jobs to ask for."""
        if self._slot.order != Order.WORK or self._leaving() or self._held:
            return 0
        return max(0, min(1 if self._fresh else self._pace, self._places - len(self._tower.flights)))

    def _take_in(self) -> None:
        """Take in the answers that have come."""
        if self._broken is not None:
            raise self._broken
        answers, self._answers = self._answers, []
        for answer in answers:
            self._late_at = None
            if isinstance(answer, Settled):
                self._held.extend(self._take_settled(answer))
            else:
                self._take_claim(answer)
        if self._late_at is not None and time.monotonic() >= self._late_at:
            raise RedisUnavailable("Redis does not answer")
        if self._heard:
            self._forget_ear()

    def _read_wire(self) -> None:
        # Here and not in the turn: by then the loop would have called twice, and the second reading would block.
        try:
            self._answers += self._wire.receive_ready()
        except RedisUnavailable as fault:
            self._broken = fault
        self._changed.set()

    def _read_ear(self) -> None:
        try:
            self._heard = bool(self._ear.receive_ready()) or self._heard
        except RedisUnavailable as fault:
            self._broken = fault
        self._changed.set()

    def _take_claim(self, claim: Claim) -> None:
        self._report(claim.faults)
        if not claim.registered:
            # The master's first beat is on the way, or another master reaped this worker: nobody else would return its jobs.
            self._late_at = time.monotonic() + self._settings.redis.socket_timeout
            self._resume = True
            self._again = self._events.call_later(UNREGISTERED_S, self._ask_again)
            return
        self._held.extend(claim.jobs)
        if not claim.jobs and self._asked_to_wait:
            if self._free():
                self._listen()
            else:
                # An order came meanwhile: off the waiting list again.
                self._resume = True

    def _ask_again(self) -> None:
        self._late_at = None
        self._changed.set()

    # Connections

    def _open(self) -> None:
        """Open the connection, after the pause that is due."""
        if self._link is Link.DOWN:
            self._link = Link.OPENING
            self._opened_at = math.inf
            # While Redis is away, this is the worker's only sign of life.
            self._slot.turned = time.monotonic()
            # Half fixed, half random: workers that lost Redis together do not come back together.
            pause_s = self._pause_s * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, hides nothing
            self._events.call_later(pause_s, self._connect, self._wire, self._opened)

    def _opened(self, fault: RedisUnavailable | None) -> None:
        if fault is not None:
            self._broken = fault
            return
        self._link, self._opened_at, self._resume = Link.UP, time.monotonic(), True
        self._events.add_reader(self._wire.fileno(), self._read_wire)

    def _listen(self) -> None:
        """Wait for a hand-over."""
        self._listening = True
        if self._ear_opening:
            return
        if self._ear.fileno() >= 0:
            self._prick()
        else:
            self._ear_opening = True
            self._connect(self._ear, self._ear_opened)

    def _ear_opened(self, fault: RedisUnavailable | None) -> None:
        self._ear_opening = False
        if self._link is not Link.UP:
            self._ear.close()
        elif fault is not None:
            self._broken = fault
        else:
            self._events.add_reader(self._ear.fileno(), self._read_ear)
            if self._listening:
                try:
                    self._prick()
                except RedisUnavailable as lost:
                    self._broken = lost

    def _prick(self) -> None:
        """Send the ear's blocking command."""
        block_s = self._settings.workers.block_timeout
        self._ear.start_move(self._keys.inbox(self._worker), self._keys.processing(self._worker), block_s)
        self._ear_timer = self._events.call_later(block_s + LATE_S, self._ear_is_late)

    def _ear_is_late(self) -> None:
        self._broken = RedisUnavailable("the connection to Redis is half-open: a blocking command did not come back")
        self._changed.set()

    def _cut(self, fault: RedisUnavailable) -> None:
        """Give both connections up; what has no answer is kept, and sent again on the next."""
        self._log.warning("Redis is away", error=str(fault))
        self._unwatch(self._wire)
        self._forget_connection()
        if not self._ear_opening:
            self._close_ear()
        self._forget_ear()
        if self._again is not None:
            self._again.cancel()
        self._broken = self._late_at = self._again = None
        self._answers.clear()
        self._pause_s = self._next_pause(self._pause_s, self._opened_at)
        self._link = Link.DOWN

    def _close_ear(self) -> None:
        self._unwatch(self._ear)
        self._ear.close()

    def _unwatch(self, wire: Wire) -> None:
        if wire.fileno() >= 0:
            self._events.remove_reader(wire.fileno())

    def _connect(self, wire: Wire, then: Callable[[RedisUnavailable | None], None]) -> None:
        """Connect in a thread, which has ended when `then` is called: a worker with threads cannot fork."""

        def connect() -> None:
            try:
                wire.connect()
            except RedisUnavailable as fault:
                self._events.call_soon_threadsafe(done, fault)
            except BaseException as fault:  # noqa: BLE001 - it has to end the worker, and not only this thread
                self._events.call_soon_threadsafe(done, RedisUnavailable(f"connecting failed: {fault!r}"))
            else:
                self._events.call_soon_threadsafe(done, None)

        def done(fault: RedisUnavailable | None) -> None:
            thread.join()
            then(fault)
            self._changed.set()

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()

    # Once a second

    def _tick_on(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._events.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        flights, now = len(self._tower.flights), time.monotonic()
        if flights:
            self._alarm.show(f"{flights} jobs" if flights > 1 else "1 job")
        self._tower.doom(now)
        self._chase_strays(now)
        if self._late_at is not None and now >= self._late_at:
            self._changed.set()
        if flights or self._strays or self._late_at is not None:
            self._tick_on()

    def _chase_strays(self, now: float) -> None:
        """Cancel what ended jobs left behind, again and again; a worker that cannot get rid of it is replaced."""
        self._strays = {task: since for task, since in self._strays.items() if not task.done()}
        for task, since in self._strays.items():
            task.cancel()
            if now - since > self._settings.workers.kill_grace and not self._runner.spent:
                self._log.error("a task that a job left behind does not end", task=repr(task))
                self._runner.spent = Spent.COROUTINES
                self._changed.set()


def _may_share(task: Task[..., Any]) -> bool:
    """True when the task's jobs may run beside others."""
    return task.is_async and task.isolation == "inline" and task.limits is None


async def _bound(coroutine: Coroutine[Any, Any, Any], flight: Flight) -> Any:
    """Cancel the job at its timeout: its cleanup runs, and its neighbours notice nothing."""
    timeout_s = flight.soft_deadline - flight.started
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await coroutine
    except TimeoutError as fault:
        if limit.expired():
            raise JobTimeout(f"allowed are {timeout_s:g} s") from fault
        raise


def warm_up(settings: Settings) -> None:
    """Load what a concurrent worker needs, if these settings ask for one: before a fork, so that all share it."""
    if settings.workers.concurrency > 1:
        _uvloop()


def _uvloop() -> Any:
    """The faster event loop, if it is installed."""
    try:
        return importlib.import_module("uvloop")
    except ImportError:
        return None


def _make_event_loop() -> asyncio.AbstractEventLoop:
    uvloop = _uvloop()
    loop: asyncio.AbstractEventLoop = asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()
    return loop
