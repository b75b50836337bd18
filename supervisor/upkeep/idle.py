"""Sees that work waits for idle workers that do not take it, because they are stopped or wedged.

Redis hands a job to a worker that waits, whether its process lives or not: the job lies in its lists then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rqsup.errors import RedisUnavailable
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.async_store import AsyncStore
from rqsup.store.keys import Keys
from rqsup.supervisor.child import Child
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.pool import Pool


class IdleWatch:
    """Tells each idle worker's stillness when a job waits for it; the plan decides what follows.

    One task of the master's loop: `run`. While all workers are busy, it asks Redis nothing.
    """

    def __init__(self, *, store: AsyncStore, pool: Pool, settings: Callable[[], Settings]) -> None:
        self._store = store
        self._pool = pool
        self._settings = settings

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.run_once()
            except RedisUnavailable:
                # The beats tell it; and while Redis is away no idle worker is judged.
                await asyncio.sleep(self._pause_s())
                continue
            await asyncio.sleep(self._pause_s())

    async def run_once(self) -> None:
        """Ask Redis about all workers that stand still."""
        still = {child.worker: child for child in self._pool.children.values() if self._stands_still(child)}
        if not still:
            return
        keys = Keys(self._settings().namespace)
        now = time.monotonic()
        lists = [key for worker in still for key in (keys.inbox(worker), keys.processing(worker))]
        # Of an idle pool, all lists are empty: one command says so.
        if not await self._store.command("EXISTS", *lists):
            return
        for worker in await self._store.run(scripts.holding(keys.root, workers=list(still))):
            # Looked at again: it may have turned while Redis answered.
            if worker in self._pool.children and self._stands_still(still[worker]):
                still[worker].stillness.work_waits(now)

    def _stands_still(self, child: Child) -> bool:
        """True for a worker that owes a turn and made none for one pause."""
        owes = child.phase is Phase.READY and child.view().idle_deadline is not None
        return owes and time.monotonic() - child.stillness.since >= self._pause_s()

    def _pause_s(self) -> float:
        # Looking more often would notice a waiting job sooner, and cost an idle pool more commands than its beats.
        return self._settings().workers.idle_grace
