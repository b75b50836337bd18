"""How many workers the pool should have: what an operator said, else the autoscaler, else the configuration."""

from __future__ import annotations

from collections.abc import Callable

from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store.async_store import AsyncStore
from rqsup.supervisor.pool import Pool
from rqsup.supervisor.upkeep.autoscaler import Autoscaler


class Staffing:
    """Holds the override of `rqsup scale`, TTIN and TTOU.

    A reload keeps the override, which is somebody's answer to a situation that a deploy does not end; status
    shows it, and `reset` drops it.
    """

    def __init__(
        self, *, store: AsyncStore, pool: Pool, settings: Callable[[], Settings], held: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._settings = settings
        self.scaled_to: int | None = None
        self._log = get_logger("master")
        self.autoscaler = Autoscaler(
            store=store, pool=pool, settings=settings, on_change=on_change,
            held=lambda: self.scaled_to is not None or held(),
        )  # fmt: skip

    @property
    def wanted(self) -> int:
        """Workers that there should be while the pool works."""
        automatic = self.autoscaler.target
        if self.scaled_to is not None:
            return self.scaled_to
        return self._settings().workers.count if automatic is None else automatic

    @property
    def source(self) -> str:
        """Who says so: operator, autoscale or configuration."""
        if self.scaled_to is not None:
            return "operator"
        return "configuration" if self.autoscaler.target is None else "autoscale"

    def scale(self, workers: int) -> None:
        """Have so many workers from now on, whatever the configuration says."""
        self.scaled_to = workers
        self._log.info("scaled", workers=workers)

    def reset(self) -> None:
        """Go back to the configured number, from which the autoscaler goes on."""
        self.scaled_to = None
        self.autoscaler.start_over()
        self._log.info("scale reset", workers=self.wanted)
