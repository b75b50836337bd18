"""`make bench`: rqsup by itself, in less than three minutes. `python -m benchmarks [--quick] [--only drain,…] [--json FILE]`

Progress goes to standard error, the table to standard output. Exit status 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.parts import FULL, PARTS, QUICK, Effort
from benchmarks.stage import end_in_order
from benchmarks.table import show
from rqsup import __version__

#: Seconds from the start after which disturbed rounds are only marked: three minutes are promised.
REPEATS_S = 60.0


def run(parts: Sequence[str], effort: Effort) -> list[Figure]:
    """Measure these parts, one after the other."""
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {line}", file=sys.stderr, flush=True)

    return [figure for part in parts for figure in PARTS[part](effort, tell)]


def document(figures: Sequence[Figure]) -> dict[str, Any]:
    """What is written to a file: the figures, and where they are from."""
    return {
        "about": {
            "rqsup": __version__, "python": platform.python_version(), "machine": platform.machine(),
            "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        "figures": {figure.name: figure.to_json() for figure in figures},
    }  # fmt: skip


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(figures), indent=1) + "\n")


def names(known: Sequence[str]) -> Any:
    """A reader of lists on the command line."""

    def read(text: str) -> list[str]:
        wanted = text.split(",")
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
        return wanted

    return read


def main(arguments: list[str]) -> int:
    """Run it; 0 only if all promises were kept."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="Small numbers, to see that it works.")
    parser.add_argument("--only", type=names(list(PARTS)), default=list(PARTS), metavar="PART,…", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write all figures there.")
    options = parser.parse_args(arguments)
    effort = replace(QUICK if options.quick else FULL, repeat_until=time.monotonic() + REPEATS_S)
    figures = run(options.only, effort)
    show(figures)
    if options.json:
        write(options.json, figures)
    return 1 if any(figure.kept is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
