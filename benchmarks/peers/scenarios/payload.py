"""Jobs that carry 100 bytes to a megabyte: sent, and run."""

from __future__ import annotations

from benchmarks.peers.pool import Pool
from benchmarks.peers.scenarios.drain import drain
from benchmarks.peers.scenarios.scale import Row, Scale, jobs_for

#: Bytes of all jobs of one run: Redis keeps them in memory.
MOST_BYTES = 200_000_000


def run(pool: Pool, scale: Scale) -> list[Row]:
    """A drain for each size, with the rate at which its jobs were sent."""
    rows = []
    for size in scale.sizes:
        jobs = min(jobs_for(pool.peer.pace.drain, scale.curve_s), max(100, MOST_BYTES // size))
        rows.append({"bytes": size} | drain(pool, jobs, size=size))
    return rows
