"""RQ: lists and hashes, a fork per job by default."""

from __future__ import annotations

from benchmarks.peers.peer import HEADER, PLAIN, Pace, Peer

APPLICATION = f"""{HEADER}
from redis import Redis
from rq import Queue

{PLAIN}
KINDS = {{"noop": noop, "nap": nap}}
queue = Queue(NAME, connection=Redis.from_url(URL))

def enqueue(kind, payload):
    queue.enqueue(KINDS[kind], payload)

def enqueue_batch(kind, payloads):
    queue.enqueue_many([Queue.prepare_data(KINDS[kind], (payload,)) for payload in payloads])
"""


def _peer(name: str, worker: str, pace: Pace, settings: str) -> Peer:
    def workers(count: int, _: bool) -> list[list[str]]:
        # The pool reads the address from here alone.
        pool = f'exec rq worker-pool -n {count} -w {worker} -u "$BENCH_URL" -l WARNING -q bench'
        return [["sh", "-c", pool]]

    return Peer(
        name=name, environment="rq", requirements=("rq==3.0.0", "redis==8.1.0", "hiredis==3.5.0"), application=APPLICATION,
        workers=workers, pace=pace, settings=settings, recommended="https://python-rq.org/docs/workers/",
    )  # fmt: skip


FORKING = _peer("rq", "rq.Worker", Pace(120, 900, 2_000), "worker-pool with the default Worker, a fork per job")
SIMPLE = _peer(
    "rq-simple", "rq.SimpleWorker", Pace(500, 900, 2_000), "worker-pool with SimpleWorker, which does not fork"
)
