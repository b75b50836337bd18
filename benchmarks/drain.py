"""How fast is a full queue emptied? `python -m benchmarks.drain [--jobs 60000] [--workers 2] [--set prefetch=1 …]`

No-op jobs, sent before the workers start. A drain counts only if every job ran, and none twice. The rate is that of the jobs
between the first and the last start.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.marks import Marks
from benchmarks.meters import Watch, cpu_s, tree, watching
from benchmarks.stage import NAMESPACE, positive, report, wait_for
from rqsup import Client, Request
from rqsup.config_source import build
from rqsup.settings import WorkerSettings
from rqsup.store.server import LocalServer
from tests.system.daemon import Daemon

#: Enough for more than a second of the fastest.
DRAIN_JOBS = 60_000
#: Longest wait for a drain, seconds.
LIMIT_S = 300.0
#: Pause between two looks at the marks, seconds: looking costs what is measured.
LOOK_PAUSE_S = 0.02
ROOT = Path(__file__).parents[1]
APP = Path(__file__).parent / "app"


@dataclass(frozen=True, slots=True)
class Scene:
    """A private server, marks for so many jobs, and a client."""

    server: LocalServer
    path: Path
    marks: Marks
    client: Client


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain took."""

    jobs_per_s: float
    #: Processor time for each job, microseconds: of the workers (and their master), and of Redis.
    worker_us: float
    redis_us: float
    #: Rate of the first and the last tenth.
    first_per_s: float
    last_per_s: float
    other_cores: float
    quiet: bool

    def to_json(self) -> dict[str, Any]:
        """The figures, rounded for reading."""
        return {name: value if isinstance(value, bool) else round(value, 2) for name, value in asdict(self).items()}


def payload(number: int) -> dict[str, Any]:
    """What each job carries."""
    return {"user_id": number, "path": f"/var/data/file-{number}.txt"}


@contextlib.contextmanager
def scene(jobs: int) -> Iterator[Scene]:
    """A private server without a file (Redis is measured, not the disk), and marks for so many jobs."""
    folder = Path(tempfile.mkdtemp(prefix="rqsup-bench-"))
    # The marks lie in memory where there is a place for that: a disk must not write them meanwhile.
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else folder  # noqa: S108 - the name is random
    path = Path(tempfile.mkstemp(prefix="rqsup-marks-", dir=memory)[1])
    server = LocalServer(folder / "redis", aof=False).start()
    try:
        with Client(server.url, namespace=NAMESPACE) as client:
            yield Scene(server, path, Marks(path, jobs), client)
    finally:
        server.stop()
        path.unlink()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def filled(jobs: int) -> Iterator[Scene]:
    """The same with so many no-op jobs in the queue."""
    with scene(jobs) as place:
        place.client.enqueue_many(Request("bench.noop", (payload(number),)) for number in range(jobs))
        yield place


@contextlib.contextmanager
def pool(place: Scene, *, workers: int = 2, start: bool = True, **settings: Any) -> Iterator[Daemon]:
    """A master with the benchmarks' application: default settings, apart from those given."""
    folder = Path(tempfile.mkdtemp(prefix="rqsup-bench-"))
    daemon = Daemon(
        place.server.url, NAMESPACE, folder=folder, app=["bench_tasks"], log={"level": "error"},
        workers={"count": workers} | settings,
    )  # fmt: skip
    daemon.environ = {"BENCH_MARKS": str(place.path), "PYTHONPATH": str(ROOT)}
    try:
        yield daemon.start(path=APP) if start else daemon
    finally:
        daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(jobs: int = DRAIN_JOBS, *, workers: int = 2, **settings: Any) -> Drained:
    """Drain so many no-op jobs by rqsup."""
    with filled(jobs) as place, pool(place, workers=workers, start=False, **settings) as daemon:
        return drained(place, jobs, lambda: [daemon.pid], begin=lambda: daemon.launch(path=APP))


def drained(
    place: Scene, jobs: int, roots: list[int] | Callable[[], list[int]], *, begin: Callable[[], Any]
) -> Drained:  # fmt: skip
    """Watch a drain, which `begin` starts; `roots` are the processes at work."""
    redis = [psutil.Process(place.server.pid)]

    def await_share(share: float) -> tuple[int, float, float]:
        wait_for(lambda: place.marks.ran(jobs) >= share * jobs, LIMIT_S, f"{share:.0%} of {jobs} jobs", LOOK_PAUSE_S)
        ours = roots() if callable(roots) else roots
        return place.marks.ran(jobs), cpu_s(tree(ours)), cpu_s(redis)

    with watching() as watch:
        begin()
        early = await_share(0.2)
        late = await_share(0.8)
        await_share(1.0)
    return summary(place.marks, jobs, watch, early, late)


def summary(
    marks: Marks, jobs: int, watch: Watch, early: tuple[int, float, float], late: tuple[int, float, float]
) -> Drained:  # fmt: skip
    """The figures, after every job's run is proven."""
    rows = marks.rows(jobs)
    wrong = [number for number, row in enumerate(rows) if row.runs != 1]
    if wrong:
        sys.exit(f"{len(wrong)} of {jobs} jobs did not run exactly once, for example number {wrong[0]}")
    starts = sorted(row.first for row in rows)
    tenth, between = max(1, jobs // 10), max(1, late[0] - early[0])
    return Drained(
        (jobs - 1) / (starts[-1] - starts[0]),
        1e6 * (late[1] - early[1]) / between, 1e6 * (late[2] - early[2]) / between,
        tenth / (starts[tenth] - starts[0]), tenth / (starts[-1] - starts[-1 - tenth]),
        watch.other_cores, watch.quiet,
    )  # fmt: skip


def settings_of(pairs: list[str]) -> Mapping[str, Any]:
    """Settings of `workers` as given on the command line, `name=value`.

    >>> settings_of(["prefetch=1", "settle=each"])
    {'prefetch': 1, 'settle': 'each'}
    """
    return {name: yaml.safe_load(value) for name, _, value in (pair.partition("=") for pair in pairs)}


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain")
    parser.add_argument("--jobs", type=positive, default=DRAIN_JOBS)
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="Settings of `workers`.")
    options = parser.parse_args(arguments)
    given = settings_of(options.set)
    wrong: list[str] = []
    build(WorkerSettings, given, "workers.", wrong)
    if wrong:  # else the master would end at its start, and the benchmark wait for it
        parser.error("; ".join(wrong))
    found = measure(options.jobs, workers=options.workers, **given)
    figures = {"jobs": options.jobs, "workers": options.workers, **given, **found.to_json()}
    return report("drain", figures, kept=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
