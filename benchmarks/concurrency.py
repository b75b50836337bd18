"""How well do coroutines share one worker? `python -m benchmarks.concurrency [jobs]`

Sends jobs that wait 100 ms, then lets one worker take them, at each of several settings of `workers.concurrency`.
The promise: 1,000 of them end in less than 150 ms x (1,000 / N). Jobs that do nothing are measured beside it: what
the event loop costs, and what it saves.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any

from benchmarks.stage import faults, numbers, report, stage, wait_for
from rqsup.request import Request
from tests.system.daemon import stats

#: Seconds that a job waits, and that it may take of its place.
NAP_S = 0.1
PROMISED_S = 0.15
#: Settings at which jobs wait, and at which they do nothing.
PLACES = (10, 50)
NOOP_PLACES = (1, 50)
NOOPS = 20_000
#: Seconds after which a run counts as stuck.
LIMIT_S = 120.0


def main(jobs: int = 1000) -> int:
    """Run it and print one JSON line."""
    naps = {places: _drain(places, jobs, "probe.together", NAP_S) for places in PLACES}
    noops = {places: _drain(places, NOOPS, "probe.noop_async") for places in NOOP_PLACES}
    figures = {
        "jobs": jobs,
        "uvloop": importlib.util.find_spec("uvloop") is not None,
        **{f"naps_at_{places}": naps[places] | {"promised_s": _promised_s(jobs, places)} for places in PLACES},
        **{f"noops_at_{places}": noops[places] for places in NOOP_PLACES},
    }
    return report("concurrency", figures, kept=all(naps[one]["seconds"] < _promised_s(jobs, one) for one in PLACES))


def _promised_s(jobs: int, places: int) -> float:
    return round(PROMISED_S * jobs / places, 3)


def _drain(places: int, jobs: int, task: str, *args: Any) -> dict[str, float]:
    """Seconds from the moment that a ready worker may take the jobs until the last has ended."""
    with stage(workers={"count": 1, "concurrency": places}) as scene:
        scene.daemon.ask("quiet")
        wait_for(lambda: scene.daemon.workers("quiet"), 10, "a quiet worker")
        scene.client.enqueue_many(Request(task, args) for _ in range(jobs))
        began = time.monotonic()
        scene.daemon.ask("resume")
        wait_for(lambda: stats(scene.client).get("succeeded", 0) >= jobs, LIMIT_S, f"{jobs} jobs of {task}")
        seconds = time.monotonic() - began
        if found := faults(scene.client):
            sys.exit("\n".join(found))
    return {"seconds": round(seconds, 3), "jobs_per_s": round(jobs / seconds)}


if __name__ == "__main__":
    sys.exit(main(*numbers(sys.argv[1:], "concurrency", jobs=(1000, "Jobs that wait."))))
