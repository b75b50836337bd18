"""`make bench-check`: compares the ratios of a new run with those in base.json. `python -m benchmarks.check [--write]`

Exit status: 0 nothing is lost; 1 a ratio lost more than 15 %; 2 there is no base; 75 the machine was too noisy to tell.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.__main__ import names, run
from benchmarks.figures import Figure
from benchmarks.gate import ALLOWED, STATUS, Judged, Verdict, base_of, judge, overall, stored
from benchmarks.parts import FULL, GATED
from benchmarks.stage import end_in_order

BASE = Path(__file__).with_name("base.json")
#: More rounds than `make bench` has: they have to agree, but for one.
EFFORT = replace(FULL, rounds=6)


def write_base(path: Path, figures: Sequence[Figure]) -> int:
    """Make this run the base."""
    try:
        ratios = base_of(figures)
    except ValueError as fault:
        print(fault, file=sys.stderr)
        return STATUS[Verdict.NOISY]
    path.write_text(json.dumps({"ratios": ratios}, indent=1) + "\n")
    print(f"wrote {path}")
    return 0


def compare(path: Path, figures: Sequence[Figure], parts: Sequence[str] = GATED) -> int:
    """Print each ratio of these parts beside its base; returns the exit status."""
    base = stored(json.loads(path.read_text()))
    judged = judge(figures, {name: value for name, value in base.items() if name.startswith(tuple(parts))})
    print(f"{'ratio':28} {'base':>8} {'now':>8}")
    for one in judged:
        print(line(one))
    verdict = overall(judged)
    print({
        Verdict.KEPT: "nothing is lost",
        Verdict.LOST: f"a ratio lost more than {ALLOWED:.0%}",
        Verdict.MISSING: "a ratio of the base was not measured: write a new base by --write, or measure all parts",
        Verdict.NOISY: "too noisy to tell: run it again on a quiet machine",
    }[verdict])  # fmt: skip
    return STATUS[verdict]


def line(judged: Judged) -> str:
    """One line of the comparison."""
    value = "-" if judged.value is None else f"{judged.value:.3f}"
    return f"{judged.name:28} {judged.base:8.3f} {value:>8}  {judged.verdict.value}"


def main(arguments: list[str]) -> int:
    """Run it."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check")
    parser.add_argument("--write", action="store_true", help="Make this run the base.")
    parser.add_argument(
        "--base", type=Path, default=BASE, metavar="FILE", help="The base. Default: benchmarks/base.json."
    )
    parser.add_argument("--only", type=names(GATED), default=list(GATED), metavar="PART,…", help=", ".join(GATED))
    options = parser.parse_args(arguments)
    if not options.write and not options.base.exists():
        # Not 1: that says that a ratio is lost, and nothing was measured.
        parser.error(
            f"no base in {options.base}: make one on a quiet machine by --write (make bench-check BENCH_ARGS=--write)"
        )
    figures = run(options.only, EFFORT)
    return write_base(options.base, figures) if options.write else compare(options.base, figures, options.only)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
