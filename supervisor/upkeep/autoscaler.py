"""Has the number of workers follow the load: looks at Redis and the pool, and lets `autoscale` decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from rqsup.errors import RedisUnavailable
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.async_store import AsyncStore
from rqsup.store.keys import Keys, lanes
from rqsup.supervisor.autoscale import Course, Load, bounded, steer
from rqsup.supervisor.picture import count_busy, count_ready
from rqsup.supervisor.pool import Pool


class Autoscaler:
    """One task of the master's loop: one round trip per `autoscale.interval`, none while it is off.

    `held` is true while the pool takes no jobs on purpose: waiting jobs then say nothing about its size.
    """

    def __init__(
        self, *, store: AsyncStore, pool: Pool, settings: Callable[[], Settings], held: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._pool = pool
        self._settings = settings
        self._held = held
        self._on_change = on_change
        #: None = it begins at the configured number.
        self.course: Course | None = None
        self._log = get_logger("master")

    @property
    def target(self) -> int | None:
        """Workers that there should be; None while it is off."""
        rules = self._settings().autoscale
        if not rules.enabled:
            return None
        return bounded(self.course.target if self.course else self._settings().workers.count, rules)

    def start_over(self) -> None:
        """Begin again at the configured number."""
        self.course = None

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._settings().autoscale.interval)
            try:
                await self.run_once()
            except RedisUnavailable as fault:
                # Unknown is not calm: the number stays as it is until Redis answers.
                self._forget_calm()
                self._log.debug("autoscale cannot look", error=str(fault))

    async def run_once(self) -> None:
        """Look once, and change the number if need be."""
        target = self.target
        if target is None:
            self.course = None
            return
        if self._held():
            self._forget_calm()
            return
        settings = self._settings()
        backlog = await self._store.run(
            scripts.gauge(Keys(settings.namespace).root, lanes=lanes(settings.workers.queues))
        )
        now, children = time.monotonic(), self._pool.children.values()
        before = self.course or Course(target, now - settings.autoscale.cooldown)
        load = Load(now, backlog.wait_ms / 1000, count_ready(children), count_busy(children))
        self.course = steer(before, load, settings.autoscale)
        if self.course.target != target:
            self._log.info("autoscale", workers=self.course.target, before=target, wait_s=round(load.wait_s, 1))
            self._on_change()

    def _forget_calm(self) -> None:
        if self.course:
            self.course = replace(self.course, calm_since=None)
