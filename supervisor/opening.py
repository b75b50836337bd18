"""The start of a master: Redis, the first zygote, then the upkeep tasks that run beside the loop until the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rqsup.logs import get_logger
from rqsup.store.reach import persistence_warning
from rqsup.supervisor.role import Role
from rqsup.supervisor.upkeep.idle import IdleWatch
from rqsup.supervisor.upkeep.reaper import Reaper
from rqsup.supervisor.upkeep.scheduler import Scheduler

if TYPE_CHECKING:
    from rqsup.supervisor.master import Master


class Opening:
    """Brings a master's pool into being, once, by `begin`.

    1. Waits for Redis, for as long as it takes.
    2. Has the first zygote import the application.
    3. Starts the upkeep tasks of the master's role.
    """

    def __init__(self, master: Master, *, inherited: bool) -> None:
        self._master = master
        #: An upgrade handed over a pool that runs: only the upkeep has to start.
        self._inherited = inherited
        self._log = get_logger("master")

    async def begin(self) -> bool:
        """Take the steps; False when a stop came first.

        Raises:
            RqsupError: Redis is unfit, or the application cannot be imported.
        """
        starting = asyncio.create_task(self._take_steps())
        stop = asyncio.create_task(self._master.farewell.asked.wait())
        await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not starting.done():
            starting.cancel()
            return False
        starting.result()
        return True

    async def _take_steps(self) -> None:
        if not self._inherited:
            await self._start_pool()
        self._start_upkeep()

    async def _start_pool(self) -> None:
        master = self._master
        warning = persistence_warning(await master.store.await_server(self._redis_is_late))
        if warning:
            self._log.warning(warning)
        if master.role is not Role.SCHEDULER:
            await master.rollout.start(master.pool)

    def _start_upkeep(self) -> None:
        master = self._master
        idle = IdleWatch(store=master.store, pool=master.pool, settings=lambda: master.settings)
        for work in (
            master.registry.run_beats(), master.registry.run_recoveries(), master.inspector.run(),
            master.staffing.autoscaler.run(), master.shedder.run(), idle.run(),
        ):  # fmt: skip
            master.spawn_task(work)
        if master.role in {Role.ALL, Role.SCHEDULER}:
            self._serve_everybody()

    def _serve_everybody(self) -> None:
        """Start what one master may do for all: due jobs, and the jobs of dead masters' workers."""
        master = self._master
        scheduler = Scheduler(store=master.store, settings=lambda: master.settings, counters=master.counters)
        reaper = Reaper(
            store=master.store,
            registry=master.registry,
            settings=lambda: master.settings,
            own=lambda: set(master.pool.children),
        )
        for work in (scheduler.run(), scheduler.listen(), reaper.run()):
            master.spawn_task(work)

    def _redis_is_late(self, fault: str, pause_s: float) -> None:
        settings, notifier = self._master.settings, self._master.notifier
        self._log.warning("waiting for Redis", error=fault)
        notifier.status(f"waiting for Redis: {fault}")
        notifier.extend_timeout(pause_s + settings.redis.connect_timeout + settings.workers.boot_timeout)
