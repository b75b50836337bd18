"""blitzq: asyncio, streams, acknowledgements in groups."""

from __future__ import annotations

from benchmarks.peers.peer import ASYNC, HEADER, Pace, Peer

APPLICATION = f"""{HEADER}
from blitzq import Queue

{ASYNC}
queue = Queue(NAME, redis_url=URL, **({{"store_results": False}} if TUNED else {{}}))
KINDS = {{"noop": queue.task(name="noop")(noop), "nap": queue.task(name="nap")(nap)}}

async def enqueue(kind, payload):
    await KINDS[kind].enqueue(payload)

async def enqueue_batch(kind, payloads):
    await KINDS[kind].enqueue_many([(payload,) for payload in payloads])

async def teardown():
    await queue.close()
"""


def _workers(count: int, _: bool) -> list[list[str]]:
    return [["blitzq", "worker", "peer_app:queue", "--workers", str(count), "--log-level", "WARNING"]]


PEER = Peer(
    name="blitzq",
    requirements=("blitzq==1.1.0", "redis==8.1.0"),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(25_000, 7_000, 42_000),
    settings="mode reliable (default), concurrency 100 (default), store_results=False",
    recommended="https://pypi.org/project/blitzq/1.1.0/",
    python=(3, 12),
)
