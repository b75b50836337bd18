"""What a job costs at each isolation level. Promise: in a process of its own in less than 3 ms, in the median.

    python -m benchmarks.isolation [JOBS [MEGABYTES]]

Measured around the runner, from the claimed bytes to the settlement, in a process that has loaded what a worker has, and holds
an application of so many megabytes: a fork copies its page tables. Redis has no part in it.
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from mmap import mmap
from typing import get_args

import msgspec

from rqsup.envelope import Envelope
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store.scripts import Claimed
from rqsup.supervisor.memory import resident
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
    rss_mb = resident(os.getpid()) >> 20
    ways = {"bare_fork": _bare_fork} | {level: _runs(runner, level) for level in get_args(Isolation)}
    # By itself: after a fork, the first touch of each page costs a fault, which is not the inline job's.
    alone_ms, alone_cpu_ms = _measure({"inline": ways.pop("inline")}, jobs)
    times_ms, cpu_ms = _measure(ways, jobs)
    times_ms, cpu_ms = alone_ms | times_ms, alone_cpu_ms | cpu_ms
    # The alarm's timer goes on, and its handler ends with the interpreter.
    signal.setitimer(signal.ITIMER_REAL, 0)
    # Only now: what they load, no worker has, and a fork would copy it.
    from benchmarks.stage import report, spread

    floor = statistics.median(times_ms["bare_fork"])
    figures = {
        "jobs": jobs,
        "application_mb": len(ballast) >> 20,
        "rss_mb": rss_mb,
        "load": round(os.getloadavg()[0], 1),
        **{f"{name}_ms": spread(times) | {"cpu": round(cpu_ms[name] / jobs, 3)} for name, times in times_ms.items()},
        **{f"{name}_to_bare_fork": round(statistics.median(times_ms[name]) / floor, 2) for name in ("fork", "sandbox")},
    }
    return report("isolation", figures, kept=statistics.median(times_ms["fork"]) < TARGET_MS)


def _runner() -> Runner:
    memory = mmap(-1, 64 * STRIDE)
    alarm = Alarm("worker 1", lambda: False)
    alarm.install()
    return Runner(
        settings=Settings(), place=Place("bench.1", 1, "bench", os.getpid(), 1), slot=slot_at(memory, 0), alarm=alarm,
        log=get_logger("bench"), belongings=Belongings((), memory),
    )  # fmt: skip


def _bare_fork() -> None:
    """What the machine itself takes to fork, end and reap this process: the floor of the other figures."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _runs(runner: Runner, level: str) -> Callable[[], None]:
    envelope = msgspec.json.encode(Envelope(id="job", task=level))

    def run() -> None:
        settlement = runner.run(Claimed("job", 1, 0, 0, envelope), lambda: False)
        if settlement is None or settlement.outcome != "succeed":
            sys.exit(f"a job ended as {settlement}")

    return run


def _measure(ways: dict[str, Callable[[], None]], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of each, and of processor time. In turns: what else the machine does hits all of them alike."""
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    cpu_ms = dict.fromkeys(ways, 0.0)
    for number in range(rounds + WARM_UP):
        for name, way in ways.items():
            started, before = time.perf_counter(), _cpu_s()
            way()
            if number >= WARM_UP:
                times_ms[name].append(1000 * (time.perf_counter() - started))
                cpu_ms[name] += 1000 * (_cpu_s() - before)
    return times_ms, cpu_ms


def _cpu_s() -> float:
    """Processor time of this process and of those that it reaped: what is left when others keep the machine busy."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
