"""How soon does an idle worker start a job? `python -m benchmarks.pickup [--jobs 500]`

One job at a time, so far apart that all workers wait again: from just before the call that sends it until the handler starts. In
the same run the bare hop, which no queue on Redis can beat: LPUSH here, BLMOVE in another process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.drain import ROOT, Scene, payload, pool, scene
from benchmarks.figures import percentile
from benchmarks.limit import BareSocket, pack
from benchmarks.marks import Marks
from benchmarks.stage import positive, report, wait_for

JOBS = 500
#: Seconds from one job to the next.
GAP_S = 0.01
#: Lists of the bare hop.
SOURCE, TARGET = "hop:source", "hop:target"


def measure(jobs: int = JOBS, workers: int = 2) -> list[float]:
    """Milliseconds of each pick-up by rqsup."""
    with scene(jobs) as place, pool(place, workers=workers):
        return _late_ms(place, jobs, lambda number: place.client.enqueue("bench.noop", payload(number)))


def measure_hop(jobs: int = JOBS) -> list[float]:
    """Milliseconds of each bare hop."""
    with scene(jobs) as place:
        command = [sys.executable, "-m", "benchmarks.pickup", "--be", place.server.url, str(place.path)]
        receiver = subprocess.Popen([*command, "--jobs", str(jobs)], cwd=ROOT)
        redis: Any = place.client.store.client
        wait_for(lambda: redis.info("clients")["blocked_clients"], 30, "the receiver to block")
        late = _late_ms(place, jobs, lambda number: redis.lpush(SOURCE, number))
        receiver.wait(30)
        return late


def _late_ms(place: Scene, jobs: int, send: Callable[[int], Any]) -> list[float]:
    due = time.monotonic()
    for number in range(jobs):
        due += GAP_S
        time.sleep(max(0.0, due - time.monotonic()))
        place.marks.sent(number)
        send(number)
    wait_for(lambda: place.marks.ran(jobs) == jobs, 30, "all jobs to start")
    return [1000 * (mark.first - mark.sent) for mark in place.marks.rows(jobs)]


def _receive(url: str, marks: Marks, jobs: int) -> None:
    bare, command = BareSocket(url), pack(("BLMOVE", SOURCE, TARGET, "RIGHT", "LEFT", 0))
    for _ in range(jobs):
        bare.send(command)
        marks.start(int(bare.reply()))


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pickup")
    parser.add_argument("--jobs", type=positive, default=JOBS)
    parser.add_argument("--be", nargs=2, metavar=("URL", "MARKS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.be:
        _receive(options.be[0], Marks(Path(options.be[1])), options.jobs)
        return 0
    figures: dict[str, Any] = {"jobs": options.jobs}
    for name, late in (("rqsup_ms", measure(options.jobs)), ("bare_hop_ms", measure_hop(options.jobs))):
        figures[name] = {f"p{share}": round(percentile(late, share / 100), 3) for share in (50, 99)}
    return report("pickup", figures, kept=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
