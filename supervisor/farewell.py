"""The end of a master: one deadline for the drain, then force, then the last debts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rqsup.logs import get_logger
from rqsup.supervisor import exits
from rqsup.supervisor.child import Child, Verdict
from rqsup.supervisor.picture import count_busy
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.pool import Pool

#: Seconds to pay the last debts when Redis does not answer at the end; a successor or a reaper pays them then.
LAST_DEBTS_S = 3.0
#: Pause between two looks at the last debts, seconds.
LOOK_S = 0.005


class Farewell:
    """Stops the pool, once `begin` was called.

    1. Warm: the target becomes 0, so the plan drains all workers; each of them has until `deadline`.
    2. Soft: JobShutdown is raised in the jobs of those that are late, which clean up and go back, uncharged.
    3. Hard: the plan kills the workers that do not end even so.
    4. When all workers are gone, `finish` waits until their jobs are back; then `over` is set.
    """

    def __init__(self, *, pool: Pool, in_debt: Callable[[], bool]) -> None:
        self._pool = pool
        self._in_debt = in_debt
        #: End of the drain, CLOCK_MONOTONIC; 0 = not begun.
        self.deadline = 0.0
        #: True when the deadline passed before all jobs were done.
        self.late = False
        #: True when it began because memory ran out (`workers.oom: fail`).
        self.starved = False
        self.over = asyncio.Event()
        self.asked = asyncio.Event()
        self._finishing = False
        self._log = get_logger("master")

    @property
    def begun(self) -> bool:
        """True once the master stops."""
        return self.asked.is_set()

    @property
    def exit_code(self) -> int:
        """How the master's end is told to whoever started it."""
        if self.starved:
            return exits.OUT_OF_MEMORY
        return exits.DRAIN_TIMED_OUT if self.late else exits.OK

    @property
    def left_s(self) -> float:
        """Seconds until the drain's end."""
        return max(0.0, self.deadline - time.monotonic())

    def begin(self, drain_timeout_s: float) -> None:
        """Let running jobs finish for so long, then stop; a second call changes nothing."""
        if not self.begun:
            self.asked.set()
            self.deadline = time.monotonic() + drain_timeout_s
            for child in self._pool.children.values():
                if child.deadline is not None and child.phase is Phase.DRAINING:
                    # A worn worker may have been given longer, when nobody waited for it.
                    child.deadline = min(child.deadline, self.deadline)
            self._log.info("stopping", busy=count_busy(self._pool.children.values()), drain_timeout_s=drain_timeout_s)

    def starve(self) -> None:
        """The end that is to begin comes from an OOM kill, which is to be told."""
        self.starved = True
        self._log.critical("a worker ran out of memory, and workers.oom is fail: draining, to end with status 71")

    def hurry(self, grace_s: float) -> None:
        """Go to the next stage: have the jobs give up, or, when they were told so already, end all workers."""
        children = list(self._pool.children.values())
        if all(child.abandoned for child in children):
            self.end_now()
            return
        for child in children:
            self._pool.abandon(child, time.monotonic() + grace_s, "stop by the operator")

    def end_now(self) -> None:
        """End all workers by force; their jobs go back."""
        for child in list(self._pool.children.values()):
            self._pool.kill(child, Verdict("stopped by the operator", charge=False))

    def passed(self, child: Child) -> None:
        """A worker did not finish in time."""
        self.late = True
        self._log.warning("drain deadline passed: an unfinished job goes back to its queue", worker=child.number)

    async def finish(self) -> None:
        """All workers are gone: see that their jobs are back, then end."""
        if self._finishing:
            return
        self._finishing = True
        deadline = time.monotonic() + LAST_DEBTS_S
        # Polled: it is over in a few ms, once in a master's life, and an event would cross three files.
        while self._in_debt() and time.monotonic() < deadline:  # noqa: ASYNC110 - see above
            await asyncio.sleep(LOOK_S)
        if self._in_debt():
            self._log.error("Redis does not answer: the jobs go back when a master runs again")
        self.over.set()
