"""What operators, probes and Prometheus can ask of the master."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from rqsup import __version__
from rqsup.errors import CommandRefused, RedisUnavailable, RqsupError
from rqsup.job import LEVEL_LABELS
from rqsup.logs import get_logger
from rqsup.settings import MAX_WORKERS
from rqsup.store.keys import Keys
from rqsup.supervisor.events import EVENTS_KEPT
from rqsup.supervisor.execution import kill_job
from rqsup.supervisor.picture import MemoryMeter, count_busy, count_ready, view_worker
from rqsup.supervisor.ports import metrics
from rqsup.supervisor.ports.control import Teller
from rqsup.supervisor.snapshot import VERSION, Snapshot
from rqsup.supervisor.stacks import take_stacks

if TYPE_CHECKING:
    from rqsup.supervisor.master import Master

#: Seconds between two lines about a stop that takes its time.
STOP_REPORT_S = 5.0
#: Most clients that may follow the events: the control socket is for others, too.
FOLLOWER_LIMIT = 8
#: Counters that exist from the start, so that a metric shows 0 and not nothing.
COUNTERS = (
    "crashed", "returned", "recovered", "deaths", "restarts", "beats_failed", "promoted", "reaped", "recycled", "memory_kills",
    "output_lines", "output_dropped", "upgrades",
)  # fmt: skip


class Commands:
    """Answers for one master; the only thing it changes is through the master's own methods."""

    def __init__(self, master: Master) -> None:
        self._master = master
        self._meter = MemoryMeter()
        self._depths: dict[tuple[str, str], int] | None = None
        self._scheduled: int | None = None
        self._dead: int | None = None
        self._log = get_logger("master")

    async def handle(self, command: str, arguments: dict[str, Any], tell: Teller) -> dict[str, Any]:
        """Carry out one command of the control socket.

        Raises:
            CommandRefused: there is no such command, or its arguments are wrong.
            RqsupError: the command failed.
        """
        answer: dict[str, Any] = {}
        match command:
            case "ping":
                answer = {"pid": os.getpid()}
            case "status":
                answer = dict(msgspec.to_builtins(self.snapshot()))
            case "reload":
                answer = await self.reload(arguments, tell)
            case "upgrade":
                await self._upgrade(arguments, tell)
            case "stop":
                answer = await self._stop(arguments, tell)
            case "quiet" | "resume":
                self._master.set_quiet(command == "quiet")
            case "scale":
                answer = self._scale(arguments)
            case "stacks" | "queues" | "events" | "kill":
                answer = await self._watch(command, arguments, tell)
            case _:
                raise CommandRefused(f"unknown command {command!r}")
        return answer

    async def _watch(self, command: str, arguments: dict[str, Any], tell: Teller) -> dict[str, Any]:
        """What an operator asks who looks at the pool, and what he does about a job that he sees there."""
        match command:
            case "stacks":
                return {"workers": await take_stacks(self._master.pool, arguments.get("pid"))}
            case "queues":
                return await self._queues()
            case "events":
                return await self._events(arguments, tell)
            case _:
                return await self._kill(arguments, tell)

    def obey(self, number: signal.Signals) -> None:
        """Carry out what a signal means; nobody waits for the answer, the log has it."""
        master = self._master
        match number:
            case signal.SIGHUP:
                master.spawn_task(self._quietly(self.reload({}, _untold)))
            case signal.SIGUSR2:
                master.spawn_task(self._quietly(self._upgrade({}, _untold)))
            case signal.SIGTERM if master.farewell.begun:
                master.farewell.hurry(master.settings.workers.shutdown_grace)
                master.look()
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                master.stop(now=number != signal.SIGTERM)
            case signal.SIGTTIN:
                master.scale(min(master.target + 1, MAX_WORKERS))
            case signal.SIGTTOU:
                master.scale(max(master.target - 1, 1))
            case signal.SIGTSTP | signal.SIGCONT:
                master.set_quiet(number == signal.SIGTSTP)
            case signal.SIGCHLD:
                master.pool.reap_strangers()
            case _:
                master.reopen_logs()

    async def reload(self, arguments: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
        """Go over to the configuration and code that are on disk now.

        Raises:
            RqsupError: nothing changed.
        """
        master = self._master

        def step(text: str) -> None:
            self._log.info("reload", step=text)
            tell(text)

        # A dead zygote is no hindrance: the reload brings its own, and may be what heals the pool.
        if not master.rollout.wanted:
            raise CommandRefused("nothing to reload: this master runs no workers (yet)")
        if master.upgrade.under_way:
            raise CommandRefused("an upgrade is under way, which ends with a reload: wait for it")
        master.notifier.reloading()
        try:
            await master.rollout.reload(step, wait=arguments.get("wait"))
        finally:
            # Always, also after a failure: else systemd waits for the end of the reload.
            master.notifier.ready(self.status_line())
        return {"generation": master.rollout.wanted}

    def snapshot(self) -> Snapshot:
        """The master and its workers at this moment."""
        master = self._master
        children = sorted(master.pool.children.values(), key=lambda child: child.number)
        self._meter.forget(child.pid for child in children)
        board = master.pool.board.totals()
        # Jobs that died with their workers are counted here, those that died in processes of their own by the workers.
        board["crashed"] += master.counters["crashed"]
        totals = dict.fromkeys(COUNTERS, 0) | dict(master.counters) | board
        return Snapshot(
            version=VERSION,
            pool=master.settings.pool,
            namespace=master.settings.namespace,
            pid=os.getpid(),
            generation=master.rollout.wanted,
            state=self._state(),
            target=master.target,
            ready=count_ready(children),
            busy=count_busy(children),
            uptime_s=round(time.monotonic() - master.started_at, 3),
            redis_url=master.store.url,
            redis_ok=master.store.ok,
            redis_fault=master.store.fault,
            metrics_address=master.metrics_address,
            last_reload=master.rollout.last_reload,
            degraded=master.rollout.restart.reason,
            counters=totals | {"strangers": master.pool.strangers},
            workers=[view_worker(child, self._meter) for child in children],
            recoveries=list(master.registry.recoveries),
            configured=master.settings.workers.count,
            target_by=master.staffing.source,
            shedding=master.shedder.reason,
            longest_turn_s=round(master.clock.longest_s, 4),
            sandbox=master.rollout.protections,
            rqsup=__version__,
            last_upgrade=master.upgrade.last,
        )

    def status_line(self) -> str:
        """The state in one line, for the title and for `systemctl status`."""
        master = self._master
        children = master.pool.children.values()
        counts = f"{count_ready(children)}/{master.target} ready, {count_busy(children)} busy"
        extra = [] if master.store.ok else ["Redis away"]
        extra += [reason[:200] for reason in (master.rollout.restart.reason, master.shedder.reason) if reason]
        if master.rollout.last_reload.startswith("failed"):
            extra.append(f"last reload {master.rollout.last_reload}"[:200])
        state = self._state()
        if master.farewell.begun:
            extra.append(f"{master.farewell.left_s:.0f} s left to finish")
        head = counts if state == "running" else f"{state}, {counts}"
        return ", ".join([head, f"gen {master.rollout.wanted}", *extra])

    def healthy(self) -> tuple[bool, str]:
        """Liveness: the loop turns, as this answer shows."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Readiness: Redis answers, and at least half of the workers can take jobs."""
        master = self._master
        ready, target = count_ready(master.pool.children.values()), master.target
        if not master.store.ok:
            return False, f"Redis does not answer: {master.store.fault}"
        if master.quiet or self._state() in {"starting", "stopping"}:
            return False, f"not taking jobs: {'quiet' if master.quiet else self._state()}"
        if master.shedder.reason:
            return False, f"not taking jobs: {master.shedder.reason}"
        reason = master.rollout.restart.reason
        degraded = f"; degraded: {reason}" if reason else ""
        if ready * 2 < target:
            return False, f"only {ready} of {target} workers are ready{degraded}"
        return True, f"ok: {ready} of {target} workers are ready{degraded}"

    def metrics(self) -> bytes:
        """The page /metrics. Depths are those read after the scrape before: a scrape never waits for Redis."""
        self._master.spawn_task(self._read_depths())
        clock = self._master.clock
        loop = metrics.LoopStats(
            turns=clock.turns, lag_s=max(0.0, self._master.lag_s), slow=clock.slow, longest_s=clock.longest_s
        )
        return metrics.render(self.snapshot(), loop, depths=self._depths, scheduled=self._scheduled, dead=self._dead)

    async def _read_depths(self) -> None:
        settings, store = self._master.settings, self._master.store
        keys = Keys(settings.namespace)
        try:
            self._depths = {
                (queue, level): await store.command("LLEN", keys.ready(f"{queue}:{level}"))
                for queue in settings.workers.queues for level in LEVEL_LABELS
            }  # fmt: skip
            self._scheduled = await store.command("ZCARD", keys.scheduled)
            self._dead = await store.command("ZCARD", keys.dead)
        except RedisUnavailable:
            # Unknown is not 0: the gauges disappear, and rqsup_redis_up tells why.
            self._depths = self._scheduled = self._dead = None

    async def _upgrade(self, arguments: dict[str, Any], tell: Callable[[str], None]) -> None:
        """Have the program that is on disk take the place of this one, which then gives the answer."""
        self._master.notifier.reloading()
        try:
            await self._master.upgrade.run(tell, wait=arguments.get("wait"))
        finally:
            self._master.notifier.ready(self.status_line())

    async def _quietly(self, command: Coroutine[Any, Any, Any]) -> None:
        try:
            await command
        except RqsupError as fault:
            self._log.error("a command by signal failed; nothing changed", error=str(fault))

    async def _stop(self, arguments: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
        master = self._master
        master.stop(now=bool(arguments.get("now")))
        while not master.farewell.over.is_set():
            busy = count_busy(master.pool.children.values())
            if busy:
                tell(f"waiting for {busy} running job(s), {master.farewell.left_s:.0f} s left")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_REPORT_S):
                    await master.farewell.over.wait()
        return {"drained": not master.farewell.late}

    async def _queues(self) -> dict[str, Any]:
        """Ready jobs by queue and level, scheduled and dead ones; null while Redis does not answer."""
        await self._read_depths()
        depths: dict[str, dict[str, int]] | None = None if self._depths is None else {}
        for (queue, level), length in (self._depths or {}).items():
            if depths is not None:
                depths.setdefault(queue, {})[level] = length
        return {"ready": depths, "scheduled": self._scheduled, "dead": self._dead}

    async def _events(self, arguments: dict[str, Any], tell: Teller) -> dict[str, Any]:
        events, last = self._master.events, arguments.get("last", EVENTS_KEPT)
        if not isinstance(last, int) or last < 0:
            raise CommandRefused(f"last must be a number from 0, not {last!r}")
        if events.followers >= FOLLOWER_LIMIT:
            raise CommandRefused(f"{FOLLOWER_LIMIT} others follow the events already: end one of them")
        await events.tell(tell, last=last, follow=bool(arguments.get("follow")))
        return {}

    async def _kill(self, arguments: dict[str, Any], tell: Teller) -> dict[str, Any]:
        job_id = arguments.get("job")
        if not isinstance(job_id, str) or not job_id:
            raise CommandRefused("name the job by its id: `rqsup status` shows what runs")
        return await kill_job(self._master, job_id, uid=tell.uid, requeue=bool(arguments.get("requeue")))

    def _scale(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("reset"):
            self._master.scale(None)
            return {"target": self._master.target}
        workers = arguments.get("workers")
        if type(workers) is not int or not 1 <= workers <= MAX_WORKERS:
            raise CommandRefused(f"workers must be a number from 1 to {MAX_WORKERS}, not {workers!r}")
        self._master.scale(workers)
        return {"target": workers}

    def _state(self) -> str:
        master = self._master
        if master.stage.value != "running":
            return str(master.stage)
        if master.rollout.restart.reason:
            return "degraded"
        if master.upgrade.under_way:
            return "upgrading"
        if master.rollout.reloading:
            return "reloading"
        if master.quiet:
            return "quiet"
        return "shedding" if master.shedder.reason else "running"


def _untold(_: str) -> None:
    """Takes progress that nobody asked for."""
