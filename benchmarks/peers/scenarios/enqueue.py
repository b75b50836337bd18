"""Jobs sent by one process: one by one, and by the peer's call for many."""

from __future__ import annotations

from benchmarks.meters import watching
from benchmarks.peers.pool import PeerFailed, Pool
from benchmarks.peers.scenarios.scale import Row, Scale, jobs_for


def run(pool: Pool, scale: Scale) -> list[Row]:
    """Send for about so long."""
    rows = [_send(pool, "one", jobs_for(pool.peer.pace.enqueue, scale.enqueue_s))]
    if pool.has_batch:
        rows.append(_send(pool, "batch", jobs_for(pool.peer.pace.batch, scale.enqueue_s)))
    return rows


def _send(pool: Pool, how: str, jobs: int) -> Row:
    pool.reset()
    pool.rest()
    with watching() as watch:
        used = pool.produce(how, "noop", jobs, 0)
    if not pool.server.client.dbsize():
        raise PeerFailed(f"{pool.peer.name}: nothing arrived in Redis, see {pool.log}")
    return {
        "how": how, "jobs": jobs, "per_s": jobs / used["seconds"], "sender_us": 1e6 * used["cpu"] / jobs,
        "other_cores": watch.other_cores, "quiet": watch.quiet,
    }  # fmt: skip
