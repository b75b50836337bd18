"""How much of everything a scenario does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: One result: figures by name.
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds that a measurement should take, and the points of each curve."""

    drain_s: float = 4.0
    enqueue_s: float = 2.0
    curve_s: float = 2.0
    pings: int = 400
    workers: tuple[int, ...] = (1, 2, 4, 8)
    lengths: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    sizes: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    #: Longest time to fill a queue, and longest to wait for a killed process's jobs.
    fill_s: float = 45.0
    watch_s: float = 120.0
    #: Seconds to wait for others to pause, and how often a peer's turn is repeated because they did not.
    patience_s: float = 5.0
    repeats: int = 2


FULL = Scale()
QUICK = Scale(0.3, 0.2, 0.2, 30, (1, 2), (300, 1_000), (100, 10_000), 5.0, 6.0, 0.0, 0)


def jobs_for(per_s: float, seconds: float, *, most: int = 500_000) -> int:
    """How many jobs take about so long.

    >>> jobs_for(1000, 4), jobs_for(10, 4), jobs_for(1_000_000, 4)
    (4000, 200, 500000)
    """
    return max(200, min(most, int(per_s * seconds)))
