"""cauli: a worker in Rust that embeds Python, streams."""

from __future__ import annotations

from benchmarks.peers.peer import ASYNC, HEADER, Pace, Peer

APPLICATION = f"""{HEADER}
from cauli import Cauli

{ASYNC}
app = Cauli(redis_url=URL, default_queue=NAME)
KINDS = {{"noop": app.task(name="noop")(noop), "nap": app.task(name="nap")(nap)}}

def enqueue(kind, payload):
    KINDS[kind].delay(payload)

def enqueue_batch(kind, payloads):
    app.enqueue_many([(KINDS[kind], (payload,)) for payload in payloads])
"""


def _workers(count: int, tuned: bool) -> list[list[str]]:
    more = ["-c", "128"] if tuned else []
    return [["cauli-worker", "-A", "peer_app:app", "--procs", str(count), "--log-level", "warn", *more]]


PEER = Peer(
    name="cauli",
    requirements=("cauli==0.1.0", "cauli-worker==0.1.0", "redis==8.1.0"),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(38_000, 5_300, 47_000),
    settings="-c 128, async tasks, results kept (default)",
    recommended="https://pypi.org/project/cauli-worker/0.1.0/",
)
