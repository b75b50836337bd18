"""SAQ: asyncio, BLMOVE."""

from __future__ import annotations

from benchmarks.peers.peer import HEADER, Pace, Peer

APPLICATION = f"""{HEADER}
from saq import Queue

async def noop(ctx, *, payload):
    marks.start(payload["user_id"])

async def nap(ctx, *, payload):
    marks.start(payload["user_id"])
    await asyncio.sleep(2)
    marks.done(payload["user_id"])

queue = Queue.from_url(URL, name=NAME)
settings = {{"queue": queue, "functions": [noop, nap], **({{"concurrency": 20}} if TUNED else {{}})}}
MORE = {{"ttl": -1}} if TUNED else {{}}

async def setup():
    await queue.connect()

async def teardown():
    await queue.disconnect()

async def enqueue(kind, payload):
    await queue.enqueue(kind, payload=payload, **MORE)
"""


def _workers(count: int, _: bool) -> list[list[str]]:
    return [["saq", "peer_app.settings", "--workers", str(count), "-q"]]


PEER = Peer(
    name="saq",
    # It imports typing_extensions without saying so.
    requirements=("saq==0.26.4", "redis==7.4.1", "hiredis==3.5.0", "typing_extensions==4.16.0"),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(3_300, 3_000),
    settings="concurrency=20 (default 10), jobs with ttl=-1: no result is kept",
    recommended="https://saq-py.readthedocs.io/en/latest/",
)
