"""Do tiny jobs wait behind long ones? `python -m benchmarks.mixed [--bursts 32]`

Bursts of 1 ms jobs with one of 500 ms among them, at a place drawn from a seed, to 4 workers that are 60 % busy: once with default
settings, once with `prefetch: 1`, which never holds a job that another worker could run. The promise: the 99th percentile of the
wait is not above that.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import Any

from benchmarks.drain import Scene, payload, pool, scene
from benchmarks.figures import percentile
from benchmarks.stage import positive, report, wait_for
from rqsup import Request

SEED, WORKERS = 20, 4
#: Jobs of one burst, one of them long; seconds from one to the next, and of each kind of job.
BURST, GAP_S, SHORT_S, LONG_S = 100, 0.25, 0.001, 0.5
BURSTS = 32


def measure(bursts: int = BURSTS, **settings: Any) -> list[float]:
    """Milliseconds that each job waited."""
    jobs = bursts * BURST
    with scene(jobs) as place, pool(place, workers=WORKERS, **settings):
        for number, burst in enumerate(plan(bursts)):
            _send(place, number * BURST, burst)
            time.sleep(GAP_S)
        wait_for(lambda: place.marks.ended(jobs) == jobs, 60, "all jobs to end")
        return [1000 * (mark.first - mark.sent) for mark in place.marks.rows(jobs)]


def plan(bursts: int) -> list[list[float]]:
    """Seconds of every job of every burst; the same in each run.

    >>> sum(burst.count(LONG_S) for burst in plan(3))
    3
    """
    luck, found = random.Random(SEED), []
    for _ in range(bursts):
        burst = [SHORT_S] * BURST
        burst[luck.randrange(BURST)] = LONG_S
        found.append(burst)
    return found


def _send(place: Scene, first: int, burst: list[float]) -> None:
    for number in range(first, first + len(burst)):
        place.marks.sent(number)
    place.client.enqueue_many(
        Request("bench.sleep", (payload(first + index), seconds)) for index, seconds in enumerate(burst)
    )


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed")
    parser.add_argument("--bursts", type=positive, default=BURSTS)
    options = parser.parse_args(arguments)
    ours, alone = (percentile(measure(options.bursts, **given), 0.99) for given in ({}, {"prefetch": 1}))
    figures = {"jobs": options.bursts * BURST, "p99_ms": round(ours, 1), "prefetch_1_p99_ms": round(alone, 1)}
    return report("mixed", figures, kept=ours <= alone)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
