"""Does a pool survive its operators? `python -m benchmarks.storm [--actions 1000] [--seed N] [--quiet]`

Random actions of an operator, one after the other, under constant load: reloads good and bad, scale, quiet, stop and start,
kill -9 of workers, jobs, zygote and master, SIGSTOP of the master. Each is printed with its number; the same seed draws
the same actions again. The promise: tests/system/storm/promise.py at each sample, no job lost, no orphan, no leak.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.stage import NAMESPACE, positive, report
from rqsup import Client
from rqsup.store.server import LocalServer
from tests.system.storm.leaks import leaks
from tests.system.storm.storm import Storm


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line after the actions."""
    options = _options().parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="rqsup-storm-"))
    server, began = LocalServer(folder).start(), time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(server.stop)
        client = stack.enter_context(Client(server.url, namespace=NAMESPACE))
        storm = Storm(server.url, NAMESPACE, seed=options.seed, tell=_tell if not options.quiet else lambda _: None)
        outcome = storm.run(client, options.actions)
    outcome.wrong += leaks(outcome.holdings)
    if outcome.wrong:
        _tell(f"the log of the masters: {storm.daemon.log}")
    else:
        shutil.rmtree(storm.daemon.folder, ignore_errors=True)
    figures = outcome.figures() | {
        "seconds": round(time.monotonic() - began, 1), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    return report("storm", figures, kept=not outcome.wrong)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm")
    parser.add_argument("--actions", type=positive, default=1000)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--quiet", action="store_true", help="Print only the result.")
    return parser


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
