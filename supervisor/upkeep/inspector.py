"""Looks at how worn the workers are, and kills those whose job uses too much memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.supervisor import memory
from rqsup.supervisor.child import Child, Verdict
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.pool import Pool
from rqsup.supervisor.recycle import Limits, Wear, why_kill, why_worn

#: Seconds between two looks at the workers' jobs and ages.
LOOK_S = 1.0
#: Phases in which a worker runs jobs.
STAYING = frozenset({Phase.READY, Phase.DRAINING})


class Inspector:
    """One task of the master's loop; it marks workers as worn, and the plan replaces them.

    Memory is read every `workers.memory_sample` seconds, only while a limit is set, and exactly only of
    workers whose resident memory could exceed one: the exact figure costs the kernel a walk through the
    process's pages, so it is read in a thread.
    """

    def __init__(
        self, *, pool: Pool, settings: Callable[[], Settings], counters: dict[str, int], on_change: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._counters = counters
        self._on_change = on_change
        self._log = get_logger("master")

    async def run(self) -> None:
        """Look for ever."""
        sampled_at = 0.0
        while True:
            workers = self._settings().workers
            await asyncio.sleep(min(LOOK_S, workers.memory_sample))
            if time.monotonic() - sampled_at >= workers.memory_sample:
                sampled_at = time.monotonic()
                await self.sample()
            self.look()

    async def sample(self) -> None:
        """Read the memory of all workers that may be near a limit; kill those whose job uses too much."""
        limits = Limits.of(self._settings().workers)
        least = limits.least_memory
        if not least:
            return
        for child in list(self._pool.children.values()):
            if child.pid and child.phase in STAYING:
                job = child.slot.current_job()
                child.memory = await _measure(child.pid, least)
                # The process of an isolated job ends with it, so it wears nobody out.
                apart = await _measure(child.slot.job_group, least) if child.slot.job_group > 1 else 0
                # Meanwhile it may have gone over to another job, which must not be charged for this one's memory.
                if job is not None and child.phase in STAYING and child.slot.current_job() == job:
                    self._punish(child, why_kill(max(child.memory, apart), limits))

    def look(self) -> None:
        """Mark the workers that have worked enough."""
        limits = Limits.of(self._settings().workers)
        for child in self._pool.children.values():
            if child.phase is Phase.READY and not child.worn:
                self._wear_out(child, why_worn(_wear(child), limits))

    def _punish(self, child: Child, reason: str) -> None:
        if reason:
            self._log.warning("killing worker", worker=child.number, pid=child.pid, reason=reason)
            self._counters["memory_kills"] += 1
            self._pool.kill(child, Verdict(reason, charge=True))

    def _wear_out(self, child: Child, reason: str) -> None:
        if reason:
            child.worn = reason
            self._counters["recycled"] += 1
            self._log.info("recycling worker", worker=child.number, pid=child.pid, reason=reason)
            self._on_change()


def _wear(child: Child) -> Wear:
    slot = child.slot
    return Wear(
        jobs=slot.jobs_ended(),
        age_s=time.monotonic() - child.forked_at,
        memory=child.memory,
        luck=child.luck,
    )


async def _measure(pid: int, least: int) -> int:
    try:
        # What a process shares is part of what is resident: below the limit there is no need to look closer.
        return await asyncio.to_thread(memory.private, pid) if memory.resident(pid) >= least else 0
    except OSError:
        # It has just ended; its death is on the way.
        return 0
