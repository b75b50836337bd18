"""How much memory does a pool hold? `python -m benchmarks.memory [--workers 8]`

PSS (a page that several processes share counts once in all) of master, zygote and workers of a small application, after each has run
jobs; and of one more worker, from the difference to a pool of 2. The promise: 8 workers in 75 MiB, one more in 5 MiB. By role, the
means of PSS and USS (pages that the process has for itself) tell where it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.drain import payload, pool, scene
from benchmarks.meters import tree
from benchmarks.stage import positive, report, wait_for
from rqsup import Request

FEW, MORE = 2, 8
#: Jobs before it is measured: a pool that never worked is smaller than one in use.
JOBS_EACH = 50
POOL_MIB, WORKER_MIB = 75.0, 5.0
ROLES = ("master", "zygote", "worker")


@dataclass(frozen=True, slots=True)
class Held:
    """What a pool holds, in MiB: in all, and (PSS, USS) of a process of each role."""

    pool_mib: float
    roles: Mapping[str, tuple[float, float]]


def measure(workers: int) -> Held:
    """What a pool holds that has worked."""
    jobs = workers * JOBS_EACH
    with scene(jobs) as place, pool(place, workers=workers) as daemon:
        place.client.enqueue_many(Request("bench.noop", (payload(number),)) for number in range(jobs))
        wait_for(lambda: place.marks.ran(jobs) == jobs, 60, "all jobs")
        return _held(tree([daemon.pid]))


def _held(processes: Iterable[psutil.Process]) -> Held:
    found = [(_role(process), process.memory_full_info()) for process in processes]

    def mean(role: str) -> tuple[float, float]:
        sizes = [(size.pss, size.uss) for its, size in found if its == role]
        pss, uss = (sum(column) / len(sizes) / (1 << 20) for column in zip(*sizes, strict=True))
        return round(pss, 2), round(uss, 2)

    return Held(sum(size.pss for _, size in found) / (1 << 20), {role: mean(role) for role in ROLES})


def _role(process: psutil.Process) -> str:
    title = process.cmdline()[0]
    return next(role for role in ROLES if title.startswith(f"rqsup: {role}"))


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--workers", type=positive, default=MORE)
    options = parser.parse_args(arguments)
    few, more = measure(FEW), measure(options.workers)
    each = (more.pool_mib - few.pool_mib) / max(1, options.workers - FEW)
    figures: dict[str, Any] = {
        "workers": options.workers,
        "pool_mib": round(more.pool_mib, 1),
        "two_mib": round(few.pool_mib, 1),
        "one_more_mib": round(each, 2),
        "pss_and_uss_mib": more.roles,
    }
    return report("memory", figures, kept=more.pool_mib < POOL_MIB and each <= WORKER_MIB)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
