"""How late do due jobs start? `python -m benchmarks.punctuality [jobs]`

Sends jobs that become due at scattered times, and prints how much after its time each one started. The
promise: within 100 ms. A bare timer of the same process is measured beside it, to tell the machine's
share of the delay from ours.
"""

from __future__ import annotations

import random
import sys
import time

from benchmarks.stage import numbers, report, spread, stage

SEED = 7


def main(jobs: int = 100) -> int:
    """Run it and print one JSON line."""
    luck = random.Random(SEED)
    with stage(workers={"count": 4}) as scene:
        delays = [luck.uniform(0.5, 4.0) for _ in range(jobs)]
        sent = [(time.time() + delay, scene.client.enqueue_in(delay, "probe.started_at")) for delay in delays]
        timer_ms = [_timer_late_ms(0.02) for _ in range(50)]
        late_ms = [1000 * (job.result(30) - due) for due, job in sent]
    figures = {"jobs": jobs, "seed": SEED, "late_ms": spread(late_ms), "bare_timer_late_ms": spread(timer_ms)}
    return report("punctuality", figures, kept=spread(late_ms)["p99"] < 100)


def _timer_late_ms(seconds: float) -> float:
    start = time.monotonic()
    time.sleep(seconds)
    return 1000 * (time.monotonic() - start - seconds)


if __name__ == "__main__":
    sys.exit(main(*numbers(sys.argv[1:], "punctuality", jobs=(100, "Jobs to send."))))
