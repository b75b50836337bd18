"""The worker's loop: claim, run, settle, until told to stop."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from typing import Any

from rqsup.errors import RedisUnavailable
from rqsup.logs import reopen
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.keys import Keys, lanes
from rqsup.store.scripts import Claimed, Settlement
from rqsup.store.wire import Wire, wait_readable
from rqsup.workers.alarm import Alarm
from rqsup.workers.channel import Channel
from rqsup.workers.prefetch import HELD_S, Prefetch
from rqsup.workers.run import Runner
from rqsup.workers.settling import Settling
from rqsup.workers.slot import Order, Slot, Spent, WorkerState

#: Scripts that a worker runs.
SCRIPTS = ("claim", "begin", "settle")
#: First pause before another try to reach Redis, seconds; doubles up to `workers.reconnect_cap`.
RECONNECT_S = 0.05
#: Longest time from the end of a tiny job to its settle, seconds, when several are settled together.
BATCH_S = 0.01
#: Seconds after which a job is not tiny: what has to be told before a longer one ends, is told then.
TIDY_S = 0.01
#: Seconds to wait for the master's first beat, without which no job is given out.
UNREGISTERED_S = 0.02


class MasterGone(Exception):
    """The master's end of the channel is closed."""


class Loop:
    """Takes jobs from Redis and runs them, one after the other.

    1. Settles what was run, and claims the next jobs in the same round trip.
    2. Finding none, registers as waiting and blocks until a job is handed to its inbox.
    3. After any fault of the connection: connects anew, settles again what has no answer (a repeat is
       recognised by its token), and takes back what lies in its own lists.
    4. Leaves on the master's order, after a soft timeout, and before and after a job on its last try, which
       runs alone in a fresh worker. Jobs it holds but did not begin go back by the master's `recover`.
    5. In the midst of a job that is not tiny, gives back what it holds behind it.
    """

    def __init__(
        self, *, settings: Settings, worker: str, slot: Slot, channel: Channel, wire: Wire, runner: Runner,
        alarm: Alarm, log: Any,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._keys = Keys(settings.namespace)
        self._lanes = lanes(settings.workers.queues)
        self._worker = worker
        self._slot = slot
        self._channel = channel
        self._wire = wire
        self._runner = runner
        self._alarm = alarm
        self._log = log
        self._prefetch = Prefetch(settings.workers.prefetch)
        #: Jobs claimed and not begun.
        self._held: deque[Claimed] = deque()
        self._settling = Settling(
            wire=wire, keys=self._keys, worker=worker, lanes=self._lanes, slot=slot, log=log
        )  # fmt: skip
        #: Why nothing could be sent in the midst of a job.
        self._fault: RedisUnavailable | None = None
        #: A wait ended without a job: one may have been handed over at that very moment.
        self._waited = False
        #: No job has run in this process yet.
        self._fresh = True

    def run(self) -> None:
        """Work until the master orders to leave.

        Raises:
            MasterGone: the master died; nobody renews this worker's lease any more.
        """
        pause_s = 0.0
        # Results without an answer keep a leaving worker alive: its master's drain deadline is the bound.
        while not self._leaving() or self._settling.unsent or self._settling.awaited:
            connected_at = math.inf
            # While Redis is away, this is the worker's only sign of life.
            self._slot.turned = time.monotonic()
            try:
                self._reconnect(pause_s)
                connected_at = time.monotonic()
                self._serve()
            except RedisUnavailable as fault:
                self._log.warning("Redis is away", error=str(fault))
                self._forget_connection()
                pause_s = self._next_pause(pause_s, connected_at)
        self._tell_end()

    def _next_pause(self, pause_s: float, connected_at: float) -> float:
        """Seconds until the next try to connect."""
        cap_s = self._settings.workers.reconnect_cap
        # A server that lets us in and then refuses our commands is as away as one that is down.
        lasted = time.monotonic() - connected_at > cap_s
        return RECONNECT_S if lasted else min(max(RECONNECT_S, pause_s * 2), cap_s)

    def _tell_end(self) -> None:
        if self._runner.spent and self._slot.order != Order.LEAVE:
            self._log.info("worker leaves to be replaced", reason=self._runner.spent.name.lower())
        self._slot.spent = self._runner.spent
        self._enter(WorkerState.LEAVING)

    def _leaving(self) -> bool:
        return bool(self._runner.spent or self._slot.order >= Order.LEAVE)

    def _reconnect(self, pause_s: float) -> None:
        """Wait, connect, and take up what was left."""
        if pause_s:
            # Half fixed, half random: workers that lost Redis together do not come back together.
            self._rest(pause_s * (0.5 + random.random() / 2))  # noqa: S311
        self._wire.connect()
        if self._settling.unsent:
            self._settle_all(claim=0)
        if not self._leaving():
            self._held.extend(self._claim(resume=True, wait=False))

    def _forget_connection(self) -> None:
        """Keep the results that have no answer; drop held jobs, which will be taken back with new tokens."""
        self._wire.close()
        self._settling.forget_connection()
        self._held.clear()

    def _serve(self) -> None:
        """Claim and run until an order comes; results are settled before it returns."""
        while not self._leaving():
            if self._held:
                self._run_one(self._held.popleft())
            elif self._slot.order == Order.QUIET:
                self._keep_quiet()
            else:
                self._held.extend(self._next_jobs())
        self._settle_all(claim=0)

    def _keep_quiet(self) -> None:
        self._held.extend(self._settle_all(claim=0))
        if self._held:
            # Claimed ahead of the order.
            return
        self._enter(WorkerState.QUIET)
        self._rest(None)

    def _enter(self, state: WorkerState) -> None:
        self._slot.state = state
        self._slot.turned = time.monotonic()
        self._alarm.show(state.name.lower())

    def _is_last_try(self, job: Claimed) -> bool:
        return 0 < job.crashes >= self._settings.workers.crash_limit - 1

    def _run_one(self, job: Claimed) -> None:
        last_try = self._is_last_try(job)
        if last_try and not (self._fresh and not self._held):
            # It goes back with all that is held; a fresh worker claims one job at first.
            self._runner.spent = Spent.LAST_TRY
            return
        self._fresh = False
        self._send_before(job, last_try=last_try)
        self._slot.turned = started = time.monotonic()
        self._entrust_tidying(started)
        settlement = self._runner.run(job, self._leaving)
        self._alarm.entrust(None)
        # None: given up on the master's order, or it could not begin here. Unsettled, it goes back by the master's `recover`.
        if settlement is not None:
            self._note(settlement, started)
            if last_try:
                # It may have left behind what makes the next job die.
                self._runner.spent = self._runner.spent or Spent.LAST_TRY
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def _send_before(self, job: Claimed, *, last_try: bool) -> None:
        """Before a job starts: tell what ended, so a crash there repeats nothing; and ask for the next jobs, if it is the last held.

        The answer is read later: no round trip lies between two jobs.
        """
        ahead = self._prefetch.ahead and not (self._held or last_try or self._runner.stands_alone(job))
        count = self._count() if ahead else 0
        if count:
            self._settling.send_ahead(count)
        elif self._settling.unsent and not self._may_wait():
            self._settling.send()

    def _entrust_tidying(self, now: float) -> None:
        """Have the alarm call `_tidy` in the midst of this job, should it be long."""
        settling = self._settling
        held = (self._held or settling.ahead) and self._prefetch.gives_back
        after_s = TIDY_S if settling.unsent else max(TIDY_S, HELD_S - (now - settling.asked))
        self._alarm.entrust(self._tidy if settling.unsent or held else None, after_s)

    def _note(self, settlement: Settlement, started: float) -> None:
        """Keep what is to be told of an ended attempt."""
        self._settling.add(settlement)
        took_s = time.monotonic() - started
        # One that gets a process of its own gives back first what is held behind it: so nothing should be held, however short it is.
        self._prefetch.learn(max(HELD_S, took_s) if self._runner.ran_apart else took_s)

    def _may_wait(self) -> bool:
        """True while ended jobs may be settled together with the next ones."""
        batch = self._settings.workers.settle == "batch" and self._prefetch.tiny
        return batch and time.monotonic() - self._settling.since < BATCH_S

    def _tidy(self) -> bool:
        """In the midst of a job that turned out to be long: settle what ended before it, give back what waits behind it.

        Called by a signal's handler, because there is no loop that could be woken: it sends, and reads what has come, but waits for
        no answer, because the job would stand still meanwhile. False = to be called again, when the jobs claimed ahead are here.
        """
        settling = self._settling
        try:
            if settling.ahead:
                self._held.extend(settling.receive_arrived())
            if self._prefetch.gives_back:
                settling.give_back(self._held)
                self._held.clear()
            if settling.unsent:
                settling.send()
        except RedisUnavailable as fault:
            self._fault = fault
        except BaseException as fault:
            # Another signal's: the job has to end, or used up a limit. Half a command may be on its way.
            self._fault = RedisUnavailable(f"a command was broken off by {type(fault).__name__}")
            raise
        return not settling.ahead

    def _next_jobs(self) -> list[Claimed]:
        """The next jobs, waiting for them if there are none; empty when an order came or time was up."""
        jobs = self._receive_ahead() if self._settling.ahead else []
        if not jobs and (self._settling.unsent or self._settling.awaited):
            jobs = self._settle_all(claim=self._count())
        if jobs:
            return jobs
        self._enter(WorkerState.IDLE)
        waited, self._waited = self._waited, False
        return self._claim(resume=waited, wait=True) or self._wait_for_hand_over()

    def _wait_for_hand_over(self) -> list[Claimed]:
        if self._slot.order != Order.WORK:
            # The wake-up may have been read already, by a rest before the worker was registered.
            return self._stop_waiting()
        block_s = self._settings.workers.block_timeout
        keys = self._keys
        answer = self._wire.move_blocking(
            keys.inbox(self._worker), keys.processing(self._worker), block_s, self._channel,
            scripts.begin(keys.root, worker=self._worker),
        )  # fmt: skip
        if answer is None:
            self._read_orders()
            return self._stop_waiting()
        moved, handed = answer
        if moved:
            return handed.jobs or self._claim(resume=True, wait=False)
        self._waited = True
        return handed.jobs

    def _stop_waiting(self) -> list[Claimed]:
        """Give up a blocking command: leaving, the process just ends; else it starts on a new connection."""
        if not self._leaving():
            self._wire.connect()
            # Takes this worker off the waiting list, and takes what was handed to it meanwhile.
            return self._claim(resume=True, wait=False, count=0)
        return []

    def _claim(self, *, resume: bool, wait: bool, count: int | None = None) -> list[Claimed]:
        while True:
            self._settling.asked = time.monotonic()
            claim = self._wire.run(scripts.claim(
                self._keys.root, worker=self._worker, count=self._count() if count is None else count,
                lanes=self._lanes, queues=self._settings.workers.queues, resume=resume, wait=wait,
            ))  # fmt: skip
            self._settling.report(claim.faults)
            if claim.registered:
                return claim.jobs
            self._rest(UNREGISTERED_S)
            if self._leaving():
                return []

    def _count(self) -> int:
        """Jobs to ask for: none while the pool is quiet, one at first, so that a job on its last try can be alone."""
        if self._slot.order == Order.QUIET:
            return 0
        return 1 if self._fresh else self._prefetch.count

    def _settle_all(self, *, claim: int) -> list[Claimed]:
        """Send what is unsent, read every answer, and return the jobs that were claimed."""
        if self._settling.unsent:
            self._settling.send(claim)
        return self._settling.receive()

    def _receive_ahead(self) -> list[Claimed]:
        """The jobs that were claimed ahead; if they are not here yet, what ended is told before they are waited for."""
        settling = self._settling
        jobs = settling.receive_arrived()
        if not settling.ahead:
            return jobs
        if settling.unsent and not self._may_wait():
            settling.send()
        return jobs + settling.receive()

    def _rest(self, seconds: float | None) -> None:
        """Sleep until an order comes, at most so long."""
        if wait_readable((self._channel,), 3600.0 if seconds is None else seconds):
            self._read_orders()

    def _read_orders(self) -> None:
        reopen()
        if not self._channel.read():
            raise MasterGone
