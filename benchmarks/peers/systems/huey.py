"""Huey: a list, BRPOP, worker processes."""

from __future__ import annotations

from benchmarks.peers.peer import HEADER, PLAIN, Pace, Peer

APPLICATION = f"""{HEADER}
from huey import RedisHuey

huey = RedisHuey(NAME, url=URL)
{PLAIN}
KINDS = {{"noop": huey.task(name="noop")(noop), "nap": huey.task(name="nap")(nap)}}

def enqueue(kind, payload):
    KINDS[kind](payload)
"""


def _workers(count: int, _: bool) -> list[list[str]]:
    return [["huey_consumer", "peer_app.huey", "-w", str(count), "-k", "process", "-q"]]


PEER = Peer(
    name="huey",
    requirements=("huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0"),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(5_500, 7_000),
    settings="worker processes (-k process), blocking reads (default)",
    recommended="https://huey.readthedocs.io/en/latest/consumer.html#worker-types",
)
