"""Dramatiq: processes with threads, its own Lua scripts."""

from __future__ import annotations

from benchmarks.peers.peer import HEADER, PLAIN, Pace, Peer

APPLICATION = f"""{HEADER}
import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=URL))
{PLAIN}
KINDS = {{"noop": dramatiq.actor(noop), "nap": dramatiq.actor(nap)}}

def enqueue(kind, payload):
    KINDS[kind].send(payload)
"""


def _workers(count: int, _: bool) -> list[list[str]]:
    return [["dramatiq", "peer_app", "--processes", str(count), "--threads", "8"]]


PEER = Peer(
    name="dramatiq",
    requirements=("dramatiq==2.2.1", "redis==8.1.0", "hiredis==3.5.0"),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(7_500, 4_600),
    settings="8 threads a process (default), default middleware; dramatiq_queue_prefetch=64 (default 16)",
    recommended="https://dramatiq.io/advanced.html#prefetch-limits",
    variables={"dramatiq_queue_prefetch": "64"},
)
