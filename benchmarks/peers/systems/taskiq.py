"""taskiq: asyncio on uvloop; a list without acknowledgement, or a stream with it."""

from __future__ import annotations

from benchmarks.peers.peer import ASYNC, HEADER, Pace, Peer

APPLICATION = f"""{HEADER}
from taskiq_redis import ListQueueBroker, RedisStreamBroker

broker = (RedisStreamBroker if os.environ.get("BENCH_STREAM") else ListQueueBroker)(url=URL)
{ASYNC}
KINDS = {{"noop": broker.task(task_name="noop")(noop), "nap": broker.task(task_name="nap")(nap)}}
setup, teardown = broker.startup, broker.shutdown

async def enqueue(kind, payload):
    await KINDS[kind].kiq(payload)
"""


def _workers(count: int, tuned: bool) -> list[list[str]]:
    more = ["--no-parse"] if tuned else []
    return [["taskiq", "worker", "peer_app:broker", "--workers", str(count), "--log-level", "WARNING", *more]]


def _peer(name: str, settings: str, variables: dict[str, str]) -> Peer:
    return Peer(
        name=name, environment="taskiq", application=APPLICATION, workers=_workers, pace=Pace(5_300, 2_800),
        requirements=("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
        settings=f"{settings}; uvloop, 100 tasks at once (default), --no-parse, no result backend",
        recommended="https://taskiq-python.github.io/guide/cli.html", variables=variables,
    )  # fmt: skip


LIST = _peer("taskiq-list", "ListQueueBroker", {})
STREAM = _peer("taskiq-stream", "RedisStreamBroker", {"BENCH_STREAM": "1"})
