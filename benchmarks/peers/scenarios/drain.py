"""A full queue of no-op jobs, emptied by two worker processes."""

from __future__ import annotations

import time

from benchmarks.meters import cpu_s, tree, watching
from benchmarks.peers.pool import PeerFailed, Pool
from benchmarks.peers.scenarios.scale import Row, Scale, jobs_for

#: Longest wait for a drain, seconds.
LIMIT_S = 180.0


def run(pool: Pool, scale: Scale) -> list[Row]:
    """Drain about as many jobs as take so long."""
    return [drain(pool, jobs_for(pool.peer.pace.drain, scale.drain_s))]


def drain(pool: Pool, jobs: int, *, workers: int = 2, size: int = 0, run_until: int | None = None) -> Row:
    """Send jobs, start the workers, and watch until all (or so many) have run.

    Raises:
        PeerFailed: a job did not run.
    """
    pool.reset()
    sent = pool.fill(jobs, size=size)
    pool.rest()
    until, reads = run_until or jobs, pool.server.reads()
    with watching() as watch:
        pool.start(workers)
        early = _await(pool, jobs, 0.2 * until)
        late = _await(pool, jobs, 0.8 * until)
        _await(pool, jobs, until)
    # Answers that are under way still count as round trips.
    time.sleep(0.2)
    reads = pool.server.reads() - reads
    pool.stop()
    ran = [mark for mark in pool.marks.rows(jobs) if mark.runs]
    starts = sorted(mark.first for mark in ran)[:until]
    between = max(1, late[0] - early[0])
    return {
        "jobs": until, "per_s": (until - 1) / (starts[-1] - starts[0]), "steady_per_s": steady(starts),
        "worker_us": 1e6 * (late[1] - early[1]) / between, "redis_us": 1e6 * (late[2] - early[2]) / between,
        "reads_per_job": reads / len(ran), "twice": sum(mark.runs > 1 for mark in ran), "enqueue_per_s": jobs / sent["seconds"],
        "other_cores": watch.other_cores, "quiet": watch.quiet,
    }  # fmt: skip


def steady(starts_s: list[float]) -> float:
    """The rate between a fifth and nine tenths of the starts: without workers that boot or have nothing left.

    >>> steady([0.0, 5.0, *(6 + number / 10 for number in range(98))])
    10.0
    """
    first, last = len(starts_s) // 5, len(starts_s) * 9 // 10
    return round((last - first) / max(1e-9, starts_s[last] - starts_s[first]), 3)


def _await(pool: Pool, jobs: int, count: float) -> tuple[int, float, float]:
    """Wait for so many starts; returns how many there were, and the processor time of the pool and of Redis."""
    deadline = time.monotonic() + LIMIT_S
    while (ran := pool.marks.ran(jobs)) < count:
        if time.monotonic() > deadline:
            raise PeerFailed(f"{pool.peer.name}: {ran} of {count:.0f} jobs ran, see {pool.log}")
        time.sleep(0.02)
    return ran, cpu_s(pool.tree()), cpu_s(tree([pool.server.process.pid]))
