"""How soon an idle worker starts a job: from just before the call that sends it until the handler runs."""

from __future__ import annotations

from benchmarks.figures import percentile
from benchmarks.meters import watching
from benchmarks.peers.pool import Pool
from benchmarks.peers.scenarios.scale import Row, Scale

#: Seconds from one job to the next.
GAP_S = 0.02


def run(pool: Pool, scale: Scale) -> list[Row]:
    """One job after the other, to two idle worker processes."""
    pool.ready()
    pool.marks.clear()
    pool.rest()
    with watching() as watch:
        pool.produce("ping", scale.pings, GAP_S)
        pool.wait(lambda: pool.marks.ran(scale.pings) == scale.pings, 30, "all jobs to start")
    pool.stop()
    late_ms = [1000 * (mark.first - mark.sent) for mark in pool.marks.rows(scale.pings)]
    return [{
        "jobs": scale.pings, "p50_ms": percentile(late_ms, 0.5), "p99_ms": percentile(late_ms, 0.99), "max_ms": max(late_ms),
        "curve_ms": [round(percentile(late_ms, share / 100), 4) for share in range(0, 100, 2)],
        "other_cores": watch.other_cores, "quiet": watch.quiet,
    }]  # fmt: skip
