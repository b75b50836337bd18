"""The stage of a benchmark: a private Redis, a real master, and figures printed alike."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rqsup import Client
from rqsup.check import check
from rqsup.store.server import LocalServer
from tests.system.daemon import Daemon

#: Namespace of all benchmarks: the server is their own.
NAMESPACE = "bench"


@dataclass(frozen=True)
class Stage:
    """What a benchmark works with."""

    server: LocalServer
    daemon: Daemon
    client: Client


@contextlib.contextmanager
def stage(*, aof: bool = True, **sections: Any) -> Iterator[Stage]:
    """A server and a master with the test application, both private; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="rqsup-bench-"))
    server = LocalServer(folder / "redis", aof=aof).start()
    daemon = Daemon(server.url, NAMESPACE, folder=folder, log={"level": "error"}, **sections)
    try:
        daemon.start()
        with Client(server.url, namespace=NAMESPACE) as client:
            yield Stage(server, daemon, client)
    finally:
        daemon.stop()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def faults(client: Client) -> list[str]:
    """What the state checker finds; empty = every job is in exactly one place."""
    return [f"{fault.id}: {fault.message}" for fault in check(client.store, client.keys).faults]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 90th and 99th percentile, and extremes of a series."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return {
        "count": len(ordered), "min": round(ordered[0], 3), "median": round(statistics.median(ordered), 3),
        "p90": at(0.90), "p99": at(0.99), "max": round(ordered[-1], 3),
    }  # fmt: skip


def wait_for(predicate: Any, limit_s: float, what: str, pause_s: float = 0.002) -> None:
    """Wait for a fact; a benchmark that waits in vain is a failed one."""
    deadline = time.monotonic() + limit_s
    while not predicate():
        if time.monotonic() > deadline:
            sys.exit(f"waited {limit_s:g} s in vain for {what}")
        time.sleep(pause_s)


def end_in_order() -> None:
    """Let SIGTERM end this process as an interrupt does: servers, masters and peers of a benchmark must not outlive it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def positive(text: str) -> int:
    """A number of something to measure, from the command line.

    >>> positive("20")
    20
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def numbers(arguments: Sequence[str], name: str, **defaults: tuple[float, str]) -> list[Any]:
    """Read numbers that stand one after the other, each with its default and its help.

    >>> numbers(["7"], "x", jobs=(50, "Jobs."), kills=(2, "Kills."))
    [7, 2]
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    for word, (default, words) in defaults.items():
        kind: Callable[[str], float] = positive if isinstance(default, int) else _seconds
        parser.add_argument(word, nargs="?", type=kind, default=default, help=f"{words} Default: {default}.")
    return list(vars(parser.parse_args(arguments)).values())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be more than 0 seconds, not {text!r}")
    return seconds


def report(name: str, figures: dict[str, Any], *, kept: bool) -> int:
    """Print the figures as one JSON line; returns the exit status: 0 only if the promise was kept."""
    print(json.dumps({"benchmark": name, **figures, "kept": kept}))
    return 0 if kept else 1
