"""Memory (PSS) of one more worker with an application of 100 MB: in rqsup, and in Celery and RQ.

Everywhere alike: a pool of few and a pool of more workers, every worker inside a job of the application; the difference
of what all processes of the pool hold, per worker. PSS counts a page that several share once in all. RQ's workers import
the application in the process of each job, because its pool does not know it; Celery's import it before the fork.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.stage import stage, wait_for
from rqsup import Request
from rqsup.store.server import LocalServer

FEW, MORE = 2, 6
#: What is compared, pinned: the newest at the time of writing.
PEERS = ("celery==5.7.0", "rq==3.0.0", "redis==8.1.0", "hiredis==3.5.0", "packaging==25.0")
#: Seconds for a pool to import the application and to have all workers in jobs.
LIMIT_S = 120.0

#: The application for both peers: the same rows, and a job that says it began and waits for a file to vanish.
PEER_APP = """
import os, time
from celery import Celery
app = Celery("peer", broker=os.environ["PEER_URL"].replace("unix://", "redis+socket://"))
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 1
ROWS = [{"id": number, "name": f"name {number}", "tags": [number, number + 1]} for number in range(245_000)]

def hold(gate):
    found = sum(row["id"] % 7 == 0 for row in ROWS[:1000])
    open(f"{gate}.{os.getpid()}", "w").close()
    while os.path.exists(gate):
        time.sleep(0.05)
    return found

hold_task = app.task(hold, name="hold")
"""
#: Enqueues so many jobs. RQ gets the function by its name, so that the sender need not load the application.
CELERY_SEND = "import sys, peer\nfor _ in range(int(sys.argv[1])): peer.hold_task.delay(sys.argv[2])"
RQ_SEND = (
    "import os, sys, redis, rq\nqueue = rq.Queue('peer', connection=redis.Redis.from_url(os.environ['PEER_URL']))\n"
    "for _ in range(int(sys.argv[1])): queue.enqueue('peer.hold', sys.argv[2])"
)


def measure(*, peers: bool) -> dict[str, float]:
    """Megabytes of one more worker, by system."""
    found = {"rqsup": _per_worker(_rqsup)}
    if peers:
        with _peers() as place:
            found["Celery prefork"] = _per_worker(lambda workers: _peer(place, workers, "celery", CELERY_SEND))
            found["RQ worker-pool"] = _per_worker(lambda workers: _peer(place, workers, "rq", RQ_SEND))
    return found


def _per_worker(pool: Callable[[int], float]) -> float:
    return round((pool(MORE) - pool(FEW)) / (MORE - FEW), 1)


def _rqsup(workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder, stage(app=["bulky"], workers={"count": workers}) as scene:
        gate = Path(folder) / "gate"
        gate.touch()
        scene.client.enqueue_many(Request("bulky.hold", (str(gate),)) for _ in range(workers))
        wait_for(lambda: scene.daemon.status()["busy"] == workers, LIMIT_S, "all workers in jobs")
        held = _pss_mb(scene.daemon.pid)
        gate.unlink()
    return held


@contextlib.contextmanager
def _peers() -> Iterator[Path]:
    """A folder with a virtual environment of the peers, and their application; gone at the end."""
    place = Path(tempfile.mkdtemp(prefix="rqsup-peers-"))
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
        subprocess.run([str(place / "venv/bin/pip"), "install", "--quiet", "--quiet", *PEERS], check=True)
        (place / "peer.py").write_text(PEER_APP)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _peer(place: Path, workers: int, name: str, send: str) -> float:
    """What a pool of this peer holds while all of its workers are in jobs."""
    server = LocalServer(place / f"redis-{name}-{workers}", aof=False).start()
    environ = {"PATH": os.environ["PATH"], "PEER_URL": server.url, "PYTHONPATH": str(place)}
    gate, bin_folder = place / f"gate-{name}-{workers}", place / "venv/bin"
    gate.touch()
    commands = {
        "celery": [str(bin_folder / "celery"), "-A", "peer", "worker", "--concurrency", str(workers), "-l", "ERROR"],
        "rq": [
            str(bin_folder / "rq"),
            "worker-pool",
            "-n",
            str(workers),
            "-u",
            server.url,
            "-l",
            "ERROR",
            "-q",
            "peer",
        ],
    }
    pool = subprocess.Popen(
        commands[name],
        cwd=place,
        env=environ,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        subprocess.run(
            [str(bin_folder / "python"), "-c", send, str(workers), str(gate)], cwd=place, env=environ, check=True
        )
        wait_for(lambda: len(list(place.glob(f"{gate.name}.*"))) == workers, LIMIT_S, f"all workers of {name} in jobs")
        return _pss_mb(pool.pid)
    finally:
        gate.unlink()
        _end(pool)
        server.stop()


def _end(pool: subprocess.Popen[bytes]) -> None:
    for process in (*psutil.Process(pool.pid).children(recursive=True), psutil.Process(pool.pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    pool.wait()


def _pss_mb(root: int) -> float:
    """What a process and all below it hold, in megabytes."""
    family = psutil.Process(root)
    return sum(float(process.memory_full_info().pss) for process in (family, *family.children(recursive=True))) / 1e6
