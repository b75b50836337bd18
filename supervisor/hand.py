"""The plan's hand: carries out what it decided, one action at a time, and says why a worker has to go."""

from __future__ import annotations

import time
from collections.abc import Callable

from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.supervisor.child import Child, drain_deadline, occasion, overdue_verdict
from rqsup.supervisor.farewell import Farewell
from rqsup.supervisor.plan import Abandon, Action, Drain, Kill, Overdue, Spawn
from rqsup.supervisor.pool import Pool
from rqsup.supervisor.rollout import Rollout
from rqsup.supervisor.upkeep.registry import Registry


class Hand:
    """Acts on the pool for the master."""

    def __init__(
        self, *, pool: Pool, rollout: Rollout, registry: Registry, farewell: Farewell, settings: Callable[[], Settings]
    ) -> None:
        self._pool = pool
        self._rollout = rollout
        self._registry = registry
        self._farewell = farewell
        self._settings = settings
        self._log = get_logger("master")

    def act(self, action: Action) -> bool:
        """Carry out one action; False when it cannot be done now, and asking again would not help."""
        match action:
            case Spawn():
                zygote = self._rollout.zygote
                if not zygote or not self._pool.spawn(zygote, check=self._rollout.check):
                    return False
                # Redis should know the worker before it asks for jobs.
                self._registry.hasten()
            case Drain(worker):
                child = self._pool.children[worker]
                deadline = self._farewell.deadline or drain_deadline(child, time.monotonic(), self._settings())
                self._pool.drain(child, deadline)
            case Abandon(worker):
                self._abandon(self._pool.children[worker])
            case Kill(worker, overdue):
                self._kill_overdue(self._pool.children[worker], overdue)
        return True

    def _abandon(self, child: Child) -> None:
        if self._farewell.begun:
            self._farewell.passed(child)
        grace_s = self._settings().workers.shutdown_grace
        self._pool.abandon(child, time.monotonic() + grace_s, f"{self._occasion(child)}: {Overdue.DRAIN}")

    def _kill_overdue(self, child: Child, overdue: Overdue) -> None:
        if child.pid == 0 and overdue is Overdue.BOOT:
            # Asked for and never forked: its zygote hangs, and would let every later request hang, too.
            self._rollout.end_zygote(child.assignment.generation)
        verdict = overdue_verdict(overdue, child, time.monotonic(), self._occasion(child))
        self._log.warning("killing worker", worker=child.number, pid=child.pid, reason=verdict.reason)
        self._pool.kill(child, verdict, ask_stack=True)

    def _occasion(self, child: Child) -> str:
        return occasion(child, stopping=self._farewell.begun, wanted=self._rollout.wanted)
