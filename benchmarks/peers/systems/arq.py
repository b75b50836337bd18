"""arq: asyncio, a polled sorted set."""

from __future__ import annotations

from benchmarks.peers.peer import HEADER, Pace, Peer

APPLICATION = f"""{HEADER}
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import func

async def noop(ctx, payload):
    marks.start(payload["user_id"])

async def nap(ctx, payload):
    marks.start(payload["user_id"])
    await asyncio.sleep(2)
    marks.done(payload["user_id"])

class WorkerSettings:
    functions = [func(noop), func(nap)]
    redis_settings = RedisSettings.from_dsn(URL)
    if TUNED:
        max_jobs, keep_result, log_results = 100, 0, False

QUIET = {{"version": 1, "disable_existing_loggers": False, "root": {{"level": "WARNING"}}}}

async def setup():
    global pool
    pool = await create_pool(WorkerSettings.redis_settings)

async def teardown():
    await pool.aclose()

async def enqueue(kind, payload):
    await pool.enqueue_job(kind, payload)
"""


def _workers(count: int, _: bool) -> list[list[str]]:
    return [["arq", "peer_app.WorkerSettings", "--custom-log-dict", "peer_app.QUIET"] for _ in range(count)]


PEER = Peer(
    name="arq",
    requirements=("arq==0.28.0", "redis==5.3.1", "hiredis==3.5.0"),
    application=APPLICATION,
    workers=_workers,
    pace=Pace(1_000, 1_500),
    settings="a process for each worker; max_jobs=100 (default 10), keep_result=0, log_results=False",
    recommended="https://arq-docs.helpmanual.io/#arq.worker.Worker",
)
