"""rqsup: this tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers.peer import HEADER, PLAIN, Pace, Peer
from rqsup.settings import WorkerSettings

ROOT = Path(__file__).parents[3]
APPLICATION = f"""{HEADER}
from rqsup import Client, Request, task

{PLAIN}
KINDS = {{"noop": task(name="noop")(noop), "nap": task(name="nap")(nap)}}
client = Client(URL, namespace=NAME)

def enqueue(kind, payload):
    client.enqueue(KINDS[kind], payload)

def enqueue_batch(kind, payloads):
    client.enqueue_many(Request(KINDS[kind], (payload,)) for payload in payloads)
"""


def rqsup(name: str, settings: Mapping[str, str]) -> Peer:
    """This tree with settings of `workers` other than the default ones."""

    def workers(count: int, _: bool) -> list[list[str]]:
        given = {
            "APP": "peer_app", "NAMESPACE": "bench", "POOL": "bench", "METRICS__PORT": "0", "LOG__LEVEL": "error",
            "CONTROL__SOCKET": "$BENCH_FOLDER/control.sock", "REDIS__URL": "$BENCH_URL", "WORKERS__COUNT": str(count),
        } | {f"WORKERS__{key.upper()}": value for key, value in settings.items()}  # fmt: skip
        words = " ".join(f'RQSUP_{key}="{value}"' for key, value in given.items())
        return [["sh", "-c", f"{words} exec rqsup run"]]

    told = ", ".join(f"workers.{key}: {value}" for key, value in settings.items()) or "default"
    return Peer(
        name=name, environment="rqsup", requirements=("-e", str(ROOT)), application=APPLICATION, workers=workers,
        pace=Pace(25_000, 7_000, 30_000), settings=told, recommended="../config/rqsup.example.yaml",
    )  # fmt: skip


DEFAULT = rqsup("rqsup", {})
#: The other ways to settle, where this version has them.
OTHERS = tuple(
    rqsup(f"rqsup-{way}", {"settle": way})
    for way in ("each", "batch")
    if "settle" in WorkerSettings.__struct_fields__ and way != getattr(WorkerSettings(), "settle", "")
)
