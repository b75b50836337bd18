"""What does supervision cost? `python -m benchmarks.supervision [--json] [--kills 40] [--peers]`

Medians and maxima of: a spawn (asked of the zygote, until ready); a death until another worker is ready, and until the job is
back in its queue, both from just before the kill; a reload of 8 workers; the memory (PSS) of one more worker with an
application of 100 MB, with `--peers` beside the same in Celery and RQ; the master's own memory. All of it as told by the
master's log, so that looking costs it nothing. What a job costs at each isolation level: `benchmarks.isolation`.

The promise: one more worker under 5 MB; ready again in under 20 ms, the job back in under 10 ms, both in the median; the
master under 40 MB.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import footprint
from benchmarks.stage import Stage, positive, report, spread, stage, wait_for
from rqsup.request import Request
from tests.system.daemon import Daemon

WORKERS = 8
RELOADS = 10
WORKER_MB, READY_MS, BACK_MS, MASTER_MB = 5.0, 20.0, 10.0, 40.0
#: Log to a file as JSON, whatever the stage would choose.
TALKATIVE = {"format": "json", "level": "info"}


class Told:
    """The events in a master's log, since the last time it was asked."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0

    def news(self) -> list[dict[str, Any]]:
        """Whole lines that are new."""
        data = self._log.read_bytes()[self._read :]
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line, or a table."""
    options = _options().parse_args(arguments)
    figures: dict[str, Any] = {"workers": WORKERS}
    with stage(workers={"count": WORKERS, "crash_limit": 1_000_000}) as scene:
        _raise_log_level(scene.daemon)
        figures |= _deaths(scene, options.kills) | {"reload_ms": _reloads(scene)}
        figures["master_rss_mb"] = round(psutil.Process(scene.daemon.pid).memory_info().rss / 1e6, 1)
    figures["extra_worker_mb"] = footprint.measure(peers=options.peers)
    figures["load"] = round(os.getloadavg()[0], 1)
    kept = (
        figures["extra_worker_mb"]["rqsup"] < WORKER_MB
        and figures["ready_again_ms"]["median"] < READY_MS
        and figures["back_ms"]["median"] < BACK_MS
        and figures["master_rss_mb"] < MASTER_MB
    )
    if not options.json:
        _print_table(figures)
    return report("supervision", figures, kept=kept)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.supervision")
    parser.add_argument("--kills", type=positive, default=40)
    parser.add_argument("--json", action="store_true", help="Print the JSON line alone.")
    parser.add_argument(
        "--peers", action="store_true", help="Measure Celery and RQ, too; installs them for the moment."
    )
    return parser


def _raise_log_level(daemon: Daemon) -> None:
    """Start the master anew with a log that tells everything."""
    daemon.stop()
    daemon.settings["log"] = TALKATIVE
    daemon.write_config()
    daemon.log.unlink()
    daemon.start()


def _deaths(scene: Stage, kills: int) -> dict[str, Any]:
    """Kill workers inside jobs, one after the other."""
    spawn_ms, ready_ms, back_ms = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        gate.touch()
        scene.client.enqueue_many(Request("probe.wait_for_file", (str(gate),)) for _ in range(WORKERS))
        told = Told(scene.daemon.log)
        for _ in range(kills):
            wait_for(lambda: scene.daemon.status()["busy"] == WORKERS, 30, "all workers in jobs")
            victim = scene.daemon.workers("busy")[0]
            told.news()
            at = time.time()
            os.kill(victim["pid"], signal.SIGKILL)
            seen = _until(told, {"worker ready", "jobs returned"})
            ready_ms.append(1000 * (_clock(seen["worker ready"]) - at))
            back_ms.append(1000 * (_clock(seen["jobs returned"]) - at))
            spawn_ms.append(seen["worker ready"]["after_ms"])
        gate.unlink()
    return {"spawn_ms": spread(spawn_ms), "ready_again_ms": spread(ready_ms), "back_ms": spread(back_ms)}


def _reloads(scene: Stage) -> dict[str, float]:
    times_ms = []
    for _ in range(RELOADS):
        began = time.monotonic()
        scene.daemon.ask("reload", wait="drained")
        times_ms.append(1000 * (time.monotonic() - began))
    return spread(times_ms)


def _until(told: Told, events: set[str]) -> dict[str, dict[str, Any]]:
    """The first event of each of these names that comes."""
    found: dict[str, dict[str, Any]] = {}

    def complete() -> bool:
        for event in told.news():
            if event["event"] in events:
                found.setdefault(event["event"], event)
        return found.keys() == events

    wait_for(complete, 30, f"the master to tell of {' and '.join(sorted(events))}")
    return found


def _clock(event: dict[str, Any]) -> float:
    return dt.datetime.fromisoformat(event["time"]).timestamp()


def _print_table(figures: dict[str, Any]) -> None:
    rows = {
        "spawn, asked of the zygote until ready": ("spawn_ms", ""),
        "death until another is ready": ("ready_again_ms", f"< {READY_MS:g}"),
        "death until the job is back": ("back_ms", f"< {BACK_MS:g}"),
        f"reload of {WORKERS} workers, the old ones gone": ("reload_ms", ""),
    }
    print(f"{'milliseconds':44} {'median':>8} {'max':>8}  aim (median)")
    for name, (key, aim) in rows.items():
        print(f"{name:44} {figures[key]['median']:8.1f} {figures[key]['max']:8.1f}  {aim}")
    for name, size in figures["extra_worker_mb"].items():
        print(
            f"{f'one more worker, 100 MB application: {name}':44} {size:8.1f} MB{'' if name != 'rqsup' else f'       < {WORKER_MB:g}'}"
        )
    print(f"{'the master itself':44} {figures['master_rss_mb']:8.1f} MB       < {MASTER_MB:g}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
