"""How many jobs a worker may hold: many while jobs are tiny, one otherwise. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Work that one worker may hold, seconds: so long may a job wait behind others though a worker is free.
HELD_S = 0.02
#: Most jobs held, however tiny.
MOST = 64
#: Typical time of a tiny job, at most, seconds: of such, several are settled together.
TINY_S = 0.001
#: Weight of the latest job when jobs get faster; a slower job counts at once and fully.
EASE = 0.1


@dataclass(slots=True)
class Prefetch:
    """Learns from the jobs' durations.

    >>> prefetch = Prefetch("auto")
    >>> prefetch.count
    1
    >>> prefetch.learn(0.0001); prefetch.count
    64
    >>> prefetch.learn(0.5); prefetch.count
    1
    """

    setting: int | Literal["auto"]
    _typical_s: float | None = None

    @property
    def count(self) -> int:
        """Jobs to ask for in the next claim."""
        if self.setting != "auto":
            return self.setting
        if self._typical_s is None:
            return 1
        return max(1, min(MOST, int(HELD_S / max(self._typical_s, 1e-6))))

    @property
    def tiny(self) -> bool:
        """True while jobs are measured to be tiny."""
        return self._typical_s is not None and self._typical_s <= TINY_S

    @property
    def ahead(self) -> bool:
        """True while the next jobs should be claimed before the last one has ended: a round trip is felt between two, and
        none that was claimed waits for longer than it may.
        """
        return self.setting == "auto" and self._typical_s is not None and TINY_S < self._typical_s <= HELD_S

    @property
    def gives_back(self) -> bool:
        """True when jobs that are held behind a long one should go to others: unless a fixed number was asked for."""
        return self.setting == "auto"

    def learn(self, duration_s: float) -> None:
        """Take one job's duration into account."""
        if self._typical_s is None or duration_s > self._typical_s:
            self._typical_s = duration_s
        else:
            self._typical_s += EASE * (duration_s - self._typical_s)
