"""All peers, by name; rqsup is one of them."""

from __future__ import annotations

from benchmarks.peers.peer import Peer
from benchmarks.peers.systems import ardiq, arq, blitzq, cauli, celery, dramatiq, huey, rq, rqsup, saq, taskiq

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        rqsup.DEFAULT, *rqsup.OTHERS, cauli.PEER, blitzq.PEER, ardiq.PEER, dramatiq.PEER, huey.PEER, taskiq.LIST,
        taskiq.STREAM, saq.PEER, arq.PEER, celery.PEER, rq.SIMPLE, rq.FORKING,
    )
}  # fmt: skip
