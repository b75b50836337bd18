"""What does a host cost Redis, idle and busy? `python -m benchmarks.hosts [seconds] [most]`

Pools of two workers on one Redis, each as a host of its own: 1, 2, 4 … of them. Idle: commands a second, those inside scripts
included, and Redis' processor time. Busy: script calls and commands for each no-op job, while all of them empty one queue.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from benchmarks.drain import LOOK_PAUSE_S, Scene, payload, pool, scene
from benchmarks.meters import cpu_s
from benchmarks.stage import numbers, report, wait_for
from rqsup import Request

WORKERS = 2
#: No-op jobs of the busy part.
JOBS = 20_000


@dataclass(frozen=True, slots=True)
class Spent:
    """What Redis had done at some moment."""

    at_s: float
    commands: int
    scripts: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Hosts:
    """What so many hosts cost."""

    hosts: int
    idle_commands_per_s: float
    idle_ms_per_s: float
    busy_scripts_per_job: float
    busy_commands_per_job: float
    busy_jobs_per_s: float


def figures(hosts: int, idle: tuple[Spent, Spent], busy: tuple[Spent, Spent]) -> Hosts:
    """What was spent from the first to the second of two moments, while idle and over `JOBS` jobs.

    >>> figures(2, (Spent(0, 0, 0, 0), Spent(10, 50, 9, 0.1)), (Spent(0, 0, 0, 0), Spent(2, 80_000, 1_000, 1)))
    Hosts(hosts=2, idle_commands_per_s=5.0, idle_ms_per_s=10.0, busy_scripts_per_job=0.05, busy_commands_per_job=4.0, busy_jobs_per_s=10000)
    """
    calm_s, busy_s = idle[1].at_s - idle[0].at_s, busy[1].at_s - busy[0].at_s
    return Hosts(
        hosts, round((idle[1].commands - idle[0].commands) / calm_s, 2), round(1e3 * (idle[1].cpu_s - idle[0].cpu_s) / calm_s, 3),
        round((busy[1].scripts - busy[0].scripts) / JOBS, 4), round((busy[1].commands - busy[0].commands) / JOBS, 2),
        round(JOBS / busy_s),
    )  # fmt: skip


def measure(hosts: int, seconds: float) -> Hosts:
    """Leave so many pools alone for so long, then have them empty a queue."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(scene(JOBS))
        for _ in range(hosts):
            stack.enter_context(pool(place, workers=WORKERS))
        calm = spent(place)
        time.sleep(seconds)
        idle = calm, spent(place)
        begun = spent(place)
        place.client.enqueue_many(Request("bench.noop", (payload(number),)) for number in range(JOBS))
        wait_for(lambda: place.marks.ran(JOBS) == JOBS, 120, "all jobs", LOOK_PAUSE_S)
        return figures(hosts, idle, (begun, spent(place)))


def spent(place: Scene) -> Spent:
    """What the server has done until now."""
    redis: Any = place.client.store.client
    # The question itself counts only for the next answer.
    commands = redis.info("stats")["total_commands_processed"]
    scripts = redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    return Spent(time.monotonic(), commands, scripts, cpu_s([psutil.Process(place.server.pid)]))


def main(seconds: int, most: int) -> int:
    """Run it and print one JSON line."""
    rows = [asdict(measure(1 << power, seconds)) for power in range(most.bit_length())]
    return report("hosts", {"workers_each": WORKERS, "rows": rows}, kept=True)


if __name__ == "__main__":
    sys.exit(main(*numbers(sys.argv[1:], "hosts", seconds=(30, "Seconds to look on."), most=(4, "Most hosts."))))
