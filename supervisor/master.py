"""The master: one event loop that wakes, reads, decides and acts.

1. Opens its ports, waits for Redis, has the first zygote import the application.
2. Turns the loop: each signal, death, readiness, command or deadline has the plan look at the pool.
3. Beside it run the upkeep tasks: beats and recoveries, reaper, scheduler.
4. Stops in order: workers drain until one deadline, what is left is killed, its jobs go back, ports close.
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from rqsup.logs import get_logger
from rqsup.settings import MAX_WORKERS, Settings
from rqsup.store.async_store import AsyncStore
from rqsup.store.connection import persistence_warning
from rqsup.supervisor import exits, signals
from rqsup.supervisor.bequest import take_over
from rqsup.supervisor.child import Child, Death, drain_deadline, overdue_verdict
from rqsup.supervisor.commands import Commands
from rqsup.supervisor.estate import Estate
from rqsup.supervisor.farewell import LAST_DEBTS_S, Farewell
from rqsup.supervisor.picture import count_ready
from rqsup.supervisor.plan import Abandon, Action, Drain, Kill, Overdue, Phase, Spawn, View, decide, next_deadline
from rqsup.supervisor.pool import Pool, host_name
from rqsup.supervisor.ports.control import ControlPort
from rqsup.supervisor.ports.http import HttpPort
from rqsup.supervisor.ports.systemd import Notifier
from rqsup.supervisor.recycle import at_a_time
from rqsup.supervisor.role import Role, Stage
from rqsup.supervisor.rollout import Rollout
from rqsup.supervisor.staffing import Staffing
from rqsup.supervisor.stall import Stall
from rqsup.supervisor.upgrade import Ports, Upgrade
from rqsup.supervisor.upkeep.idle import IdleWatch
from rqsup.supervisor.upkeep.inspector import Inspector
from rqsup.supervisor.upkeep.reaper import Reaper
from rqsup.supervisor.upkeep.registry import Registry
from rqsup.supervisor.upkeep.scheduler import Scheduler
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

    `load` reads the configuration again for a reload; `left` is what an upgrade hands over.
    """

    def __init__(
        self, settings: Settings, *, load: Callable[[], Settings], role: Role = Role.ALL, left: Estate | None = None
    ) -> None:
        self.role = role
        self._left = left
        self._running = False
        self.started_at = time.monotonic()
        self.counters: Counter[str] = Counter()
        self.quiet = False
        self.metrics_address = ""
        self.lag_s = 0.0
        self.turns = 0
        self.notifier = Notifier.from_environment()
        self.store = AsyncStore(settings.redis)
        self.rollout = Rollout(settings=settings, load=load, target=lambda: self.target, on_change=self.look)
        self.pool = Pool(
            host=host_name(),
            slots=2 * MAX_WORKERS,
            on_change=self.look,
            on_ready=self._worker_ready,
            on_death=self._worker_died,
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
        # Workers are forked twice, and jobs may leave processes behind: all of them become our children.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)
        set_title(f"master [{self.settings.pool}] starting")
        await (take_over(self, self._ports, self._left) if self._left else self._control.start())
        try:
            signals.install(asyncio.get_running_loop(), self._commands.obey)
            if not self._left:
                signals.release()
                await self._open_http()
            if await self._start():
                await self.farewell.over.wait()
        finally:
            await self._close()
        return exits.DRAIN_TIMED_OUT if self.farewell.late else exits.OK

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
        """Wait for Redis, import the application, start the upkeep; False when a stop came first."""
        starting = asyncio.create_task(self._start_steps())
        stop = asyncio.create_task(self.farewell.asked.wait())
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not starting.done():
            starting.cancel()
            return False
        starting.result()
        return True

    async def _start_steps(self) -> None:
        if not self._left:
            await self._start_pool()
        self.spawn_task(self.registry.run_beats())
        self.spawn_task(self.registry.run_recoveries())
        for upkeep in (self.inspector.run(), self.staffing.autoscaler.run(), self.shedder.run()):
            self.spawn_task(upkeep)
        self.spawn_task(IdleWatch(store=self.store, pool=self.pool, settings=lambda: self.settings).run())
        if self.role in {Role.ALL, Role.SCHEDULER}:
            scheduler = Scheduler(store=self.store, settings=lambda: self.settings, counters=self.counters)
            reaper = Reaper(
                store=self.store,
                registry=self.registry,
                settings=lambda: self.settings,
                own=lambda: set(self.pool.children),
            )
            for work in (scheduler.run(), scheduler.listen(), reaper.run()):
                self.spawn_task(work)
        self._running = True
        self.spawn_task(self._tick_for_ever())
        self.look()
        if self._left:
            self.upgrade.complete(self._left)

    async def _start_pool(self) -> None:
        warning = persistence_warning(await self.store.await_server(self._redis_is_late))
        if warning:
            self._log.warning(warning)
        if self.role is not Role.SCHEDULER:
            await self.rollout.start(self.pool)
        # Waiting for Redis and for the application's import was no stall.
        self.stall.awake_at = time.monotonic()

    def _redis_is_late(self, fault: str, pause_s: float) -> None:
        self._log.warning("waiting for Redis", error=fault)
        self.notifier.status(f"waiting for Redis: {fault}")
        self.notifier.extend_timeout(pause_s + self.settings.redis.connect_timeout + self.settings.workers.boot_timeout)

    def _look(self) -> None:
        """Decide and act until there is nothing more to do, then sleep until the next deadline."""
        self._look_due = False
        # Here and not in the tick: after a stall, a deadline's timer may come first.
        self._notice_stall()
        for _ in range(MAX_WORKERS):
            actions = decide(self._view())
            if not actions:
                break
            if not all(self._act(action) for action in actions):
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
            can_fork=self.rollout.zygote is not None,
            trial=self.rollout.trial,
            not_before=self.rollout.restart.not_before,
            pardon_until=self.stall.pardon_until,
            children=tuple(child.view() for child in self.pool.children.values()),
            recycle_most=at_a_time(self.target, self.settings.workers.recycle_share),
            redis_ok=self.store.ok,
        )

    def _act(self, action: Action) -> bool:
        """Carry out one action; False when it cannot be done now, and asking again would not help."""
        match action:
            case Spawn():
                zygote = self.rollout.zygote
                if not zygote or not self.pool.spawn(zygote, check=self.rollout.check):
                    return False
                # Redis should know the worker before it asks for jobs.
                self.registry.hasten()
            case Drain(worker):
                child = self.pool.children[worker]
                self.pool.drain(child, self.farewell.deadline or drain_deadline(child, time.monotonic(), self.settings))
            case Abandon(worker):
                self._abandon(self.pool.children[worker])
            case Kill(worker, overdue):
                self._kill_overdue(self.pool.children[worker], overdue)
        return True

    def _abandon(self, child: Child) -> None:
        if self.farewell.begun:
            self.farewell.passed(child)
        grace_s = self.settings.workers.shutdown_grace
        self.pool.abandon(child, time.monotonic() + grace_s, f"{self._occasion(child)}: {Overdue.DRAIN}")

    def _kill_overdue(self, child: Child, overdue: Overdue) -> None:
        if child.pid == 0 and overdue is Overdue.BOOT:
            # Asked for and never forked: its zygote hangs, and would let every later request hang, too.
            self.rollout.end_zygote(child.assignment.generation)
        verdict = overdue_verdict(overdue, child, time.monotonic(), self._occasion(child))
        self._log.warning("killing worker", worker=child.number, pid=child.pid, reason=verdict.reason)
        self.pool.kill(child, verdict, ask_stack=True)

    def _occasion(self, child: Child) -> str:
        """Why a draining worker has to leave, in a word."""
        if child.phase is not Phase.DRAINING:
            return ""
        if self.farewell.begun:
            return "stop by the operator"
        return "reload" if child.assignment.generation != self.rollout.wanted else "fewer workers wanted"

    def _worker_ready(self, child: Child) -> None:
        self._log.info("worker ready", worker=child.number, pid=child.pid, generation=child.assignment.generation)
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

    async def _tick_for_ever(self) -> None:
        interval_s = min(TICK_S, self.notifier.watchdog_interval_s or TICK_S)
        before = time.monotonic()
        while True:
            await asyncio.sleep(interval_s)
            now = time.monotonic()
            self.lag_s, self.turns = now - before - interval_s, self.turns + 1
            before = now
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
        self._set_timer(None)
        while self._tasks:
            # More than once: on Python 3.11 asyncio.wait_for, which redis-py uses, may swallow a cancellation.
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
