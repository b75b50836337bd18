"""How soon is a killed worker's job back in its queue? `python -m benchmarks.recovery [jobs] [kills]`

SIGKILLs random workers while jobs run, and prints the distribution of the time from the kill (taken just
before the system call) until the job is back in its queue. The promise: median under 20 ms, maximum under
1 s, every job succeeded, every job in exactly one place.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Any

from benchmarks.stage import Stage, faults, numbers, report, spread, stage, wait_for
from rqsup.request import Request
from tests.system.daemon import all_ended, stats

SEED = 20


def measure(jobs: int, kills: int) -> dict[str, Any]:
    """Kill so many workers while so many jobs run."""
    with stage(workers={"count": 4}) as scene:
        scene.client.enqueue_many(Request("probe.nap", (0.002,)) for _ in range(jobs))
        started = time.monotonic()
        back_ms = _storm(scene, kills, jobs)
        wait_for(lambda: all_ended(scene.client, jobs), 600, "all jobs to end")
        counted, wrong = stats(scene.client), faults(scene.client)
        return {
            "jobs": jobs, "kills": kills, "succeeded": counted["succeeded"], "dead": counted.get("dead", 0),
            "returned": counted.get("recovered", 0), "seconds": round(time.monotonic() - started, 1), "seed": SEED,
            "killed_to_back_ms": spread(back_ms), "faults": wrong,
        }  # fmt: skip


def main(jobs: int = 50_000, kills: int = 200) -> int:
    """Run it and print one JSON line."""
    figures = measure(jobs, kills)
    spreads = figures["killed_to_back_ms"]
    kept = figures["succeeded"] == jobs and not figures["faults"] and spreads["median"] < 20 and spreads["max"] < 1000
    return report("recovery", figures, kept=kept)


def _storm(scene: Stage, kills: int, jobs: int) -> list[float]:
    """Kill workers, spread over the run; returns the times from kill to back of those that held a job."""
    luck, back_ms, daemon = random.Random(SEED), [], scene.daemon
    for killed in range(1, kills + 1):
        _await_progress(scene, jobs * killed // (kills + 2))
        wait_for(lambda: daemon.status()["ready"] == 4, 30, "four ready workers")
        victim = luck.choice(daemon.workers())
        at = time.time()
        os.kill(victim["pid"], signal.SIGKILL)
        _await_deaths(scene, killed)
        back_ms += [
            1000 * (one["at"] - at) for one in _recoveries(scene) if one["worker"] == victim["id"] and one["jobs"]
        ]
    return back_ms


def _await_progress(scene: Stage, succeeded: int) -> None:
    wait_for(lambda: stats(scene.client).get("succeeded", 0) >= succeeded, 120, "progress")


def _await_deaths(scene: Stage, deaths: int) -> None:
    wait_for(lambda: scene.daemon.status()["counters"]["deaths"] >= deaths, 30, "the death to be seen")


def _recoveries(scene: Stage) -> list[dict[str, Any]]:
    # The master tells of a recovery when the jobs are back: a death without one had no job, or is not done yet.
    wait_for(lambda: not scene.client.store.client.hlen(scene.client.keys.workers) > 5, 30, "debts to be paid")
    found: list[dict[str, Any]] = scene.daemon.status()["recoveries"]
    return found


if __name__ == "__main__":
    sys.exit(main(*numbers(sys.argv[1:], "recovery", jobs=(50_000, "Jobs to run."), kills=(200, "Workers to kill."))))
