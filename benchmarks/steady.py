"""Do jobs of 10 ms keep all workers busy? `python -m benchmarks.steady [--jobs 3200] [--workers 8]`

Jobs that wait 10 ms each, from a full queue. Ideal is a start every 10 ms / workers; the share of it is taken between the 10th and the
90th part of the starts. The promise: 97 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.drain import LIMIT_S, LOOK_PAUSE_S, payload, pool, scene
from benchmarks.stage import positive, report, wait_for
from rqsup import Request

JOBS, WORKERS, JOB_S = 3_200, 8, 0.010
AIM = 0.97


def measure(jobs: int = JOBS, workers: int = WORKERS) -> float:
    """The share of the ideal rate."""
    with scene(jobs) as place:
        place.client.enqueue_many(Request("bench.sleep", (payload(number), JOB_S)) for number in range(jobs))
        with pool(place, workers=workers):
            wait_for(lambda: place.marks.ended(jobs) == jobs, LIMIT_S, "all jobs to end", LOOK_PAUSE_S)
        return share_of_ideal([mark.first for mark in place.marks.rows(jobs)], workers)


def share_of_ideal(starts_s: Sequence[float], workers: int) -> float:
    """The rate of the starts, without begin and end, as share of one each `JOB_S` in each worker.

    >>> share_of_ideal([number * 0.02 for number in range(100)], 1)
    0.5
    """
    ordered = sorted(starts_s)
    first, last = len(ordered) // 10, len(ordered) * 9 // 10
    return round((last - first) / (ordered[last] - ordered[first]) * JOB_S / workers, 4)


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady")
    parser.add_argument("--jobs", type=positive, default=JOBS)
    parser.add_argument("--workers", type=positive, default=WORKERS)
    options = parser.parse_args(arguments)
    share = measure(options.jobs, options.workers)
    return report(
        "steady", {"jobs": options.jobs, "workers": options.workers, "share_of_ideal": share}, kept=share >= AIM
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
