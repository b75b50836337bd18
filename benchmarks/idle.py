"""What does an idle pool cost? `python -m benchmarks.idle [seconds]`

Prints the CPU time of a master with four idle workers, and the commands that they send to Redis. The
promise: under 1 % of a core together, under 2 commands a second for each worker.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.stage import numbers, report, stage

WORKERS = 4


@dataclass(frozen=True, slots=True)
class Idle:
    """What an idle pool took."""

    seconds: float
    #: Part of a core, of master and workers together.
    share: float
    #: Redis commands a second, of all of them together.
    commands_per_s: float


def measure(seconds: float, workers: int) -> Idle:
    """Leave a pool alone for so long."""
    with stage(workers={"count": workers}) as scene:
        family = [psutil.Process(pid) for pid in scene.daemon.tree()]
        redis = scene.client.store.client
        cpu, calls, start = _cpu(family), _calls(redis), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - start
        # The command that asks is not theirs.
        return Idle(passed, (_cpu(family) - cpu) / passed, (_calls(redis) - calls - 1) / passed)


def main(seconds: int = 30) -> int:
    """Run it and print one JSON line."""
    found = measure(seconds, WORKERS)
    rate = found.commands_per_s / WORKERS
    figures = {
        "seconds": round(found.seconds, 1), "workers": WORKERS, "share_of_a_core_percent": round(100 * found.share, 3),
        "commands_per_s_per_worker": round(rate, 3),
    }  # fmt: skip
    return report("idle", figures, kept=found.share < 0.01 and rate < 2)


def _cpu(family: list[psutil.Process]) -> float:
    # The master's children_* fields would count workers twice.
    return sum(process.cpu_times().user + process.cpu_times().system for process in family)


def _calls(redis: Any) -> int:
    """Commands processed so far, those inside scripts included."""
    return int(redis.info("stats")["total_commands_processed"])


if __name__ == "__main__":
    sys.exit(main(*numbers(sys.argv[1:], "idle", seconds=(30, "Seconds to look on."))))
