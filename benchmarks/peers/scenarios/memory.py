"""Memory (PSS) of all processes of a pool that has run jobs."""

from __future__ import annotations

from benchmarks.meters import pss_mib
from benchmarks.peers.pool import Pool
from benchmarks.peers.scenarios.scale import Row, Scale

FEW, MORE = 2, 8


def run(pool: Pool, _: Scale) -> list[Row]:
    """Pools of 2 and of 8 worker processes. Noise of others does not change it."""
    held = {workers: _measure(pool, workers) for workers in (FEW, MORE)}
    return [{
        "two_mib": held[FEW], "eight_mib": held[MORE], "one_more_mib": (held[MORE] - held[FEW]) / (MORE - FEW), "quiet": True,
    }]  # fmt: skip


def _measure(pool: Pool, workers: int) -> float:
    pool.ready(workers)
    try:
        return pss_mib(pool.tree())
    finally:
        pool.stop()
