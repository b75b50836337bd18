"""Celery: prefork pool, Redis as broker, no result backend."""

from __future__ import annotations

from benchmarks.peers.peer import HEADER, PLAIN, Pace, Peer

APPLICATION = f"""{HEADER}
from celery import Celery

{PLAIN}
app = Celery("peer_app", broker=URL)
app.conf.broker_connection_retry_on_startup = True
if TUNED:
    app.conf.worker_prefetch_multiplier = 64
KINDS = {{"noop": app.task(noop, name="noop"), "nap": app.task(nap, name="nap")}}

def enqueue(kind, payload):
    KINDS[kind].delay(payload)
"""


def _workers(count: int, tuned: bool) -> list[list[str]]:
    more = ["--without-gossip", "--without-mingle", "--without-heartbeat"] if tuned else []
    return [["celery", "-A", "peer_app", "worker", "--concurrency", str(count), "-l", "WARNING", *more]]


PEER = Peer(
    name="celery",
    # kombu imports packaging without saying so.
    requirements=(
        "celery==5.7.0",
        "kombu==5.7.0",
        "billiard==4.3.2",
        "redis==8.1.0",
        "hiredis==3.5.0",
        "packaging==25.0",
    ),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(1_000, 1_000),
    settings="prefork; worker_prefetch_multiplier=64, without gossip, mingle and heartbeat, no result backend",
    recommended="https://docs.celeryq.dev/en/stable/userguide/optimizing.html",
)
