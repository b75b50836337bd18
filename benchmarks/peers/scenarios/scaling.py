"""The same drain with 1 to 8 worker processes."""

from __future__ import annotations

from benchmarks.peers.pool import Pool
from benchmarks.peers.scenarios.drain import drain
from benchmarks.peers.scenarios.scale import Row, Scale, jobs_for


def run(pool: Pool, scale: Scale) -> list[Row]:
    """A drain for each number of workers."""
    jobs = jobs_for(pool.peer.pace.drain, scale.curve_s)
    return [{"workers": workers} | drain(pool, jobs, workers=workers) for workers in scale.workers]
