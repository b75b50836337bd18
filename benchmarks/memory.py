"""How much memory does a pool hold? `python -m benchmarks.memory [--workers 8]`

PSS (a page that several processes share counts once in all) of master, zygote and workers of a small application, after each has run
jobs; and of one more worker, from the difference to a pool of 2. The promise: 8 workers in 75 MiB, one more in 5 MiB.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.drain import payload, pool, scene
from benchmarks.meters import pss_mib, tree
from benchmarks.stage import positive, report, wait_for
from rqsup import Request

FEW, MORE = 2, 8
#: Jobs before it is measured: a pool that never worked is smaller than one in use.
JOBS_EACH = 50
POOL_MIB, WORKER_MIB = 75.0, 5.0


def measure(workers: int) -> float:
    """Mebibytes of a pool that has worked."""
    jobs = workers * JOBS_EACH
    with scene(jobs) as place, pool(place, workers=workers) as daemon:
        place.client.enqueue_many(Request("bench.noop", (payload(number),)) for number in range(jobs))
        wait_for(lambda: place.marks.ran(jobs) == jobs, 60, "all jobs")
        return pss_mib(tree([daemon.pid]))


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("--workers", type=positive, default=MORE)
    options = parser.parse_args(arguments)
    few, more = measure(FEW), measure(options.workers)
    each = (more - few) / max(1, options.workers - FEW)
    figures = {
        "workers": options.workers,
        "pool_mib": round(more, 1),
        "two_mib": round(few, 1),
        "one_more_mib": round(each, 2),
    }
    return report("memory", figures, kept=more < POOL_MIB and each <= WORKER_MIB)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
