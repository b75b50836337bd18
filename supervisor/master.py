"""The master: one event loop that wakes, reads, decides and acts.

1. Opens its ports; the opening waits for Redis and the first zygote, and starts the upkeep tasks beside the loop.
2. Turns the loop: each signal, death, readiness, command or deadline has the plan look at the pool, and the hand act.
3. Stops in order: workers drain until one deadline, what is left is killed, its jobs go back, ports close.
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from rqsup.logs import get_logger, reopen, tap
from rqsup.settings import MAX_WORKERS, Settings
from rqsup.store.async_store import AsyncStore
from rqsup.supervisor import signals
from rqsup.supervisor.bequest import take_over
from rqsup.supervisor.child import Child, Death
from rqsup.supervisor.commands import Commands
from rqsup.supervisor.drain import Sink
from rqsup.supervisor.estate import Estate
from rqsup.supervisor.events import Events
from rqsup.supervisor.farewell import LAST_DEBTS_S, Farewell
from rqsup.supervisor.hand import Hand
from rqsup.supervisor.leaves import Leaves
from rqsup.supervisor.opening import Opening
from rqsup.supervisor.picture import count_ready
from rqsup.supervisor.plan import View, decide, next_deadline
from rqsup.supervisor.pool import Pool, host_name
from rqsup.supervisor.ports.control import ControlPort
from rqsup.supervisor.ports.http import HttpPort
from rqsup.supervisor.ports.systemd import Notifier
from rqsup.supervisor.recycle import at_a_time
from rqsup.supervisor.role import Role, Stage
from rqsup.supervisor.rollout import Rollout
from rqsup.supervisor.staffing import Staffing
from rqsup.supervisor.stall import Stall
from rqsup.supervisor.turns import TurnClock
from rqsup.supervisor.upgrade import Ports, Upgrade
from rqsup.supervisor.upkeep.inspector import Inspector
from rqsup.supervisor.upkeep.registry import Registry
from rqsup.supervisor.upkeep.shedder import Shedder
from rqsup.workers.slot import Order
from rqsup.workers.title import set_title

#: prctl(2): orphaned descendants become this process's children.
PR_SET_CHILD_SUBREAPER = 36
#: Seconds between two looks at things that send no event: running jobs' deadlines, titles, watchdog.
TICK_S = 1.0
#: Seconds to wait for cancelled tasks before they are cancelled again.
CANCEL_S = 0.1
#: Seconds beyond the drain and the last debts in which the ports close.
CLOSE_S = 5.0


class Master:
    """Supervises one pool of workers.

    `config` is the file that a reload reads again, `clock` measures the loop, `left` is what an upgrade hands over.
    """

    def __init__(
        self, settings: Settings, *, config: str | None, clock: TurnClock, role: Role = Role.ALL, left: Estate | None = None
    ) -> None:  # fmt: skip
        self.role = role
        self._left = left
        self._running = False
        self.started_at = time.monotonic()
        self.counters: Counter[str] = Counter()
        self.events = Events()
        self.quiet = False
        self.metrics_address = ""
        self.lag_s = 0.0
        self.clock = clock
        self.notifier = Notifier.from_environment()
        self.store = AsyncStore(settings.redis)
        self.rollout = Rollout(settings=settings, config=config, target=lambda: self.target, on_change=self.look)
        self.pool = Pool(
            host=host_name(),
            slots=2 * MAX_WORKERS,
            on_change=self.look,
            on_ready=self._worker_ready,
            on_death=self._worker_died,
            sink=Sink(lambda: self.rollout.settings, self.counters),
        )
        self.registry = Registry(
            store=self.store, pool=self.pool, settings=lambda: self.rollout.settings, counters=self.counters
        )
        self.inspector = Inspector(
            pool=self.pool, settings=lambda: self.settings, counters=self.counters, on_change=self.look
        )
        self.shedder = Shedder(settings=lambda: self.settings, on_change=self._give_order)
        self.staffing = Staffing(
            store=self.store, pool=self.pool, settings=lambda: self.settings, on_change=self.look,
            held=lambda: self.pool.order is Order.QUIET,
        )  # fmt: skip
        self.farewell = Farewell(pool=self.pool, in_debt=lambda: self.registry.in_debt)
        self._opening = Opening(self, inherited=left is not None)
        self._hand = Hand(
            pool=self.pool, rollout=self.rollout, registry=self.registry, farewell=self.farewell,
            settings=lambda: self.settings,
        )  # fmt: skip
        self._commands = Commands(self)
        self._control = ControlPort(settings.control.socket, self._commands.handle, pool=settings.pool)
        self._http = HttpPort(
            metrics=self._commands.metrics, healthy=self._commands.healthy, ready=self._commands.ready
        )
        self._ports = Ports(self._control, self._http)
        self.upgrade = Upgrade(self, self._ports, self._commands.reload)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._look_due = False
        self._timer: asyncio.TimerHandle | None = None
        self.stall = Stall(awake_at=time.monotonic())
        self.told_ready = False
        self._log = get_logger("master", pool=settings.pool)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.rollout.settings

    @property
    def stage(self) -> Stage:
        """Where this master stands in its life."""
        if self.farewell.begun:
            return Stage.STOPPING
        return Stage.RUNNING if self._running else Stage.STARTING

    @property
    def target(self) -> int:
        """Workers that there should be."""
        if self.farewell.begun or self.role is Role.SCHEDULER:
            return 0
        return self.staffing.wanted

    async def run(self) -> int:
        """Live from start to stop; returns the exit code.

        Raises:
            RqsupError: it could not start: the socket or a port is taken, Redis is not there or unfit,
                the application cannot be imported.
        """
        tap(self.events.take)
        # Workers are forked twice, and jobs may leave processes behind: all of them become our children.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
        set_title(f"master [{self.settings.pool}] starting")
        await (take_over(self, self._ports, self._left) if self._left else self._control.start())
        try:
            self.pool.leaves = Leaves.open(self.settings)
            signals.install(asyncio.get_running_loop(), self._commands.obey)
            if not self._left:
                signals.release()
                await self._open_http()
            if await self._start():
                await self.farewell.over.wait()
        finally:
            await self._close()
        return self.farewell.exit_code

    def look(self) -> None:
        """Have the plan look at the pool soon; many calls make one look."""
        if not self._look_due:
            self._look_due = True
            asyncio.get_running_loop().call_soon(self._look)

    def stop(self, *, now: bool) -> None:
        """Begin to stop, or stop faster."""
        if not self.farewell.begun:
            self.notifier.stopping("stopping")
        self.farewell.begin(self.settings.workers.drain_timeout)
        if now:
            self.farewell.end_now()
        self.look()

    def set_quiet(self, quiet: bool) -> None:
        """Stop or resume fetching; running jobs go on."""
        self.quiet = quiet
        self._log.info("quiet" if quiet else "resumed")
        self._give_order()

    def scale(self, workers: int | None) -> None:
        """Have so many workers from now on, whatever the configuration says; None = as it says."""
        if workers is None:
            self.staffing.reset()
        else:
            self.staffing.scale(workers)
        self.look()

    def spawn_task(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside the loop; its failure is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _give_order(self) -> None:
        self.pool.command_all(Order.QUIET if self.quiet or self.shedder.reason else Order.WORK)
        self.look()

    async def _open_http(self) -> None:
        metrics = self.settings.metrics
        if metrics.enabled:
            self.metrics_address = await self._http.start(metrics.host, metrics.port)

    async def _start(self) -> bool:
        """Wait for all that the pool needs, then begin to turn; False when a stop came first."""
        if not await self._opening.begin():
            return False
        if not self._left:
            # Waiting for Redis and for the application's import was no stall.
            self.stall.awake_at = time.monotonic()
        self._running = True
        self.spawn_task(self._tick_for_ever())
        self.look()
        if self._left:
            self.upgrade.complete(self._left)
        return True

    def _look(self) -> None:
        """Decide and act until there is nothing more to do, then sleep until the next deadline."""
        self._look_due = False
        # Here and not in the tick: after a stall, a deadline's timer may come first.
        self._notice_stall()
        for _ in range(MAX_WORKERS):
            actions = decide(self._view())
            if not actions:
                break
            if not all(self._hand.act(action) for action in actions):
                break
        self._set_timer(next_deadline(self._view()))
        self._tell_state()
        if self.farewell.begun and not self.pool.children:
            self.spawn_task(self.farewell.finish())

    def _view(self) -> View:
        return View(
            now=time.monotonic(),
            target=self.target,
            generation=self.rollout.wanted,
            can_fork=self.rollout.may_fork,
            trial=self.rollout.trial,
            not_before=self.rollout.restart.not_before,
            pardon_until=self.stall.pardon_until,
            children=tuple(child.view() for child in self.pool.children.values()),
            recycle_most=at_a_time(self.target, self.settings.workers.recycle_share),
            surge=at_a_time(self.target, self.settings.workers.reload_share),
            redis_ok=self.store.ok,
        )

    def _worker_ready(self, child: Child) -> None:
        self._log.info("worker ready", **child.introduction(time.monotonic()))
        self.rollout.worker_ready()
        self.registry.hasten()

    def _worker_died(self, death: Death) -> None:
        self.registry.owe(death)
        self.rollout.worker_died(death)
        if death.orderly:
            self._log.info("worker left", worker=death.number, pid=death.pid)
        else:
            self.counters["deaths"] += 1
            self.counters["restarts"] += self.stage is Stage.RUNNING
            job = death.job.id if death.job else None
            stack = {"stack": death.stack} if death.stack else {}
            self._log.warning("worker died", worker=death.number, pid=death.pid, cause=death.cause, job_id=job, **stack)
        if death.oom and self.settings.workers.oom == "fail" and not self.farewell.begun:
            self.farewell.starve()
            self.stop(now=False)

    def reopen_logs(self) -> None:
        """Go over to a new log file now, if the old one was renamed."""
        reopen()
        for child in self.pool.children.values():
            # Looking at its orders, it looks after its log too; one in a job does that with its next line.
            self.pool.wake(child)
        self._log.info("logs reopened", file=self.settings.log.file)

    async def _tick_for_ever(self) -> None:
        interval_s = min(TICK_S, self.notifier.watchdog_interval_s or TICK_S)
        before = time.monotonic()
        while True:
            await asyncio.sleep(interval_s)
            self.lag_s, before = time.monotonic() - before - interval_s, time.monotonic()
            self.pool.oom.tick()
            self._look()
            self.pool.reap_strangers()
            self.notifier.watchdog()

    def _notice_stall(self) -> None:
        late_s = self.stall.woke(time.monotonic(), TICK_S)
        if late_s:
            self._log.warning("the master was held up; no worker is killed for lateness now", late_s=round(late_s, 1))

    def _tell_state(self) -> None:
        text = self._commands.status_line()
        set_title(f"master [{self.settings.pool}] {text}")
        if self.farewell.begun:
            grace_s = self.settings.workers.shutdown_grace
            self.notifier.extend_timeout(self.farewell.left_s + grace_s + LAST_DEBTS_S + CLOSE_S)
        elif (
            not self.told_ready
            and self.stage is Stage.RUNNING
            and count_ready(self.pool.children.values()) >= self.target
        ):
            self.told_ready = True
            self.notifier.ready(text)
            self._log.info("ready", workers=self.target, metrics=self.metrics_address)
        self.notifier.status(text)

    def _set_timer(self, deadline: float | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if deadline is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, deadline - time.monotonic()), self.look)

    async def _close(self) -> None:
        self.events.close()
        self._set_timer(None)
        while self._tasks:
            # More than once: on Python 3.11 asyncio.wait_for in a library may swallow a cancellation.
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CANCEL_S)
        await self.rollout.close()
        await self._http.close()
        await self._control.close()
        await self.store.close()

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        # An upkeep task never ends by itself: without it the pool would rot quietly. systemd starts us anew.
        self._log.critical("a part of the master failed; stopping", exc_info=task.exception())
        self.stop(now=False)
