"""What a job costs in a short queue and in a long one: the first jobs of each are run."""

from __future__ import annotations

from benchmarks.peers.pool import Pool
from benchmarks.peers.scenarios.drain import drain
from benchmarks.peers.scenarios.scale import Row, Scale, jobs_for


def run(pool: Pool, scale: Scale) -> list[Row]:
    """A run for each length that can be sent in time."""
    pace = pool.peer.pace
    measured = jobs_for(pace.drain, scale.curve_s)
    return [
        {"length": length} | drain(pool, length, run_until=min(length, measured))
        for length in scale.lengths
        if length <= scale.fill_s * max(pace.enqueue, pace.batch)
    ]
