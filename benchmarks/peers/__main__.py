"""`make bench-peers`. `python -m benchmarks.peers [--peers rqsup,huey] [--scenarios drain,pickup] [--rounds 3] [--quick]`

Installs what is missing, measures, and writes docs/benchmarks.md, plots beside it, and benchmarks/results/*.json. What was measured
before and is not measured now stays. `--quick` writes below .bench/quick instead: its figures say nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.__main__ import names
from benchmarks.drain import ROOT
from benchmarks.figures import Tell
from benchmarks.peers import document, plots, results
from benchmarks.peers.environments import CACHE, NoEnvironment, install
from benchmarks.peers.peer import Peer
from benchmarks.peers.rounds import rounds
from benchmarks.peers.scenarios import SCENARIOS
from benchmarks.peers.scenarios.scale import FULL, QUICK
from benchmarks.peers.systems import PEERS
from benchmarks.stage import end_in_order, positive
from rqsup.store.server import find_binary


def main(arguments: list[str]) -> int:
    """Run it; 1 when a peer could not be installed or measured."""
    end_in_order()
    options = _options().parse_args(arguments)
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {line}", file=sys.stderr, flush=True)

    out = CACHE / "quick" if options.quick else ROOT
    folder = out / "benchmarks/results"
    peers, whole = ([], True) if options.report else _installed(options.peers, tell)
    for scenario in options.scenarios if not options.report else ():
        rows = list(rounds(peers, scenario, options.rounds, QUICK if options.quick else FULL, tell))
        results.save(folder, scenario, about(options.rounds), rows)
        whole = whole and not any("error" in row for row in rows)
    _report(out, folder, tell)
    return 0 if whole else 1


def about(rounds_each: int) -> dict[str, Any]:
    """Where and when it was measured."""
    redis = subprocess.run([find_binary(), "--version"], check=True, capture_output=True, text=True).stdout.split()
    return {
        "rounds": rounds_each, "cores": os.cpu_count(), "memory": round(psutil.virtual_memory().total / 2**30),
        "system": f"Linux {platform.release()} on {platform.machine()}", "redis": f"{redis[0]} {redis[2].removeprefix('v=')}",
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def _installed(wanted: Sequence[str], tell: Tell) -> tuple[list[Peer], bool]:
    """Those of the peers that could be installed, and whether all could."""
    found = []
    for name in wanted:
        try:
            install(PEERS[name], tell)
        except NoEnvironment as fault:
            tell(f"{name} is left out: {fault}")
        else:
            found.append(PEERS[name])
    return found, len(found) == len(wanted)


def _report(out: Path, folder: Path, tell: Tell) -> None:
    """Write the document and its plots out of everything that was ever measured here."""
    found = {scenario: results.load(folder, scenario) for scenario in SCENARIOS}
    measured = {row["peer"] for rows in found.values() for row in rows}
    drawn = plots.draw(out / "docs/benchmarks", found) if plots.available() else []
    if not drawn:
        tell("no plots: matplotlib is not installed (pip install 'rqsup[bench]'), or there is nothing to draw")
    path = out / "docs/benchmarks.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    document.write(
        path, found, [peer for peer in PEERS.values() if peer.name in measured], results.about(folder), drawn
    )
    tell(f"wrote {path}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument(
        "--peers", type=names(list(PEERS)), default=list(PEERS), metavar="PEER,…", help=", ".join(PEERS)
    )
    parser.add_argument(
        "--scenarios",
        type=names(list(SCENARIOS)),
        default=list(SCENARIOS),
        metavar="SCENARIO,…",
        help=", ".join(SCENARIOS),
    )
    parser.add_argument("--rounds", type=positive, default=3, help="Rounds of each scenario. Default: 3.")
    parser.add_argument(
        "--quick", action="store_true", help="Small numbers, to see that it works; nothing of it is kept."
    )
    parser.add_argument("--report", action="store_true", help="Measure nothing: write the document again.")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
