"""ardiq: a core in Rust, streams."""

from __future__ import annotations

from benchmarks.peers.peer import ASYNC, HEADER, Pace, Peer

APPLICATION = f"""{HEADER}
from ardiq import Ardiq

{ASYNC}
app = Ardiq(redis_url=URL, queue_name=NAME, **({{"concurrency": 64}} if TUNED else {{}}))
KINDS = {{"noop": app.task(name="noop")(noop), "nap": app.task(name="nap")(nap)}}

async def enqueue(kind, payload):
    await KINDS[kind].enqueue(payload)

async def enqueue_batch(kind, payloads):
    await app.enqueue_many([KINDS[kind].prepare(payload) for payload in payloads])
"""


def _workers(count: int, _: bool) -> list[list[str]]:
    return [["ardiq", "run", "peer_app:app", "-w", str(count), "-q"]]


PEER = Peer(
    name="ardiq",
    requirements=("ardiq==1.2.0",),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(15_000, 3_200, 60_000),
    settings="concurrency=64 (default 16), results kept (default)",
    recommended="https://pypi.org/project/ardiq/1.2.0/",
    python=(3, 12),
)
