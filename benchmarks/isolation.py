"""What a job costs at each isolation level. Promise: in a process of its own in less than 3 ms, in the median.

    python -m benchmarks.isolation [JOBS [MEGABYTES]]

Measured around the runner, from the claimed bytes to the settlement, in a process that holds an application of so many
megabytes: a fork copies its page tables. Redis has no part in it.
"""

from __future__ import annotations

import os
import sys
import time
from mmap import mmap
from typing import get_args

import msgspec
import psutil

from benchmarks.stage import report, spread
from rqsup.envelope import Envelope
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store.scripts import Claimed
from rqsup.task import Isolation, task
from rqsup.workers.alarm import Alarm
from rqsup.workers.isolation.apart import Belongings
from rqsup.workers.run import Place, Runner
from rqsup.workers.slot import STRIDE, slot_at

#: Milliseconds that a job in a process of its own may cost.
TARGET_MS = 3.0
#: Jobs before the measured ones: the first of a sandbox tries the protections.
WARM_UP = 5


def nothing() -> None:
    """Do nothing: what is left is the cost of the isolation."""


def main(jobs: int = 1000, megabytes: int = 100) -> int:
    """Run it and print one JSON line."""
    for level in get_args(Isolation):
        task(name=level, isolation=level)(nothing)
    ballast = bytearray(os.urandom(1 << 20)) * megabytes
    runner = _runner()
    levels = {level: _measure(runner, level, jobs) for level in get_args(Isolation)}
    figures = {
        "jobs": jobs,
        "application_mb": len(ballast) >> 20,
        "rss_mb": psutil.Process().memory_info().rss >> 20,
        "bare_fork_ms": _bare_forks(jobs),
        "load": round(os.getloadavg()[0], 1),
        **{f"{level}_ms": figures for level, figures in levels.items()},
    }
    return report("isolation", figures, kept=levels["fork"]["median"] < TARGET_MS)


def _runner() -> Runner:
    memory = mmap(-1, 64 * STRIDE)
    alarm = Alarm(1, lambda: False)
    alarm.install()
    return Runner(
        settings=Settings(), place=Place("bench.1", 1, "bench", os.getpid(), 1), slot=slot_at(memory, 0), alarm=alarm,
        log=get_logger("bench"), belongings=Belongings((), memory),
    )  # fmt: skip


def _bare_forks(times: int) -> dict[str, float]:
    """What the machine itself takes to fork, end and reap this process: the floor of the other figures."""
    times_ms = []
    for _ in range(times):
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        times_ms.append(1000 * (time.perf_counter() - started))
    return spread(times_ms)


def _measure(runner: Runner, level: str, jobs: int) -> dict[str, float]:
    envelope = msgspec.json.encode(Envelope(id="job", task=level))
    times_ms, before = [], _cpu_s()
    for number in range(jobs + WARM_UP):
        started = time.perf_counter()
        settlement = runner.run(Claimed("job", number, 0, 0, envelope), lambda: False)
        if number >= WARM_UP:
            times_ms.append(1000 * (time.perf_counter() - started))
        if settlement is None or settlement.outcome != "succeed":
            sys.exit(f"a job ended as {settlement}")
    return spread(times_ms) | {"cpu": round(1000 * (_cpu_s() - before) / (jobs + WARM_UP), 3)}


def _cpu_s() -> float:
    """Processor time of this process and of those that it reaped: what is left when others keep the machine busy."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
