"""The part of `make bench` that sends: what `benchmarks.enqueue` prints, as figures."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.figures import RATIO, Figure, Tell
from benchmarks.meters import watching

if TYPE_CHECKING:
    from benchmarks.parts import Effort

MODULE = "benchmarks.enqueue"


def enqueue(effort: Effort, tell: Tell) -> list[Figure]:
    """Run it in processes of its own; nothing where it is not there."""
    if importlib.util.find_spec(MODULE) is None:
        tell(f"enqueue: no {MODULE} here, left out")
        return []
    rounds: list[list[Figure]] = []
    quiet: list[bool] = []
    while quiet.count(True) < effort.rounds and len(quiet) < effort.rounds + 2:
        with watching() as watch:
            ended = subprocess.run([sys.executable, "-m", MODULE], check=False, stdout=subprocess.PIPE, text=True)
        if not ended.stdout:
            sys.exit(f"{MODULE} ended with {ended.returncode} and said nothing")
        rounds.append(read(json.loads(ended.stdout.splitlines()[-1])))
        quiet.append(watch.quiet)
        tell(f"enqueue, round {len(rounds)}: {ended.stdout.splitlines()[-1]}")
    return [
        replace(column[0], rounds=tuple(one.value for one in column), quiet=tuple(quiet))
        for column in zip(*rounds, strict=True)
    ]


def read(told: dict[str, Any]) -> list[Figure]:
    """The numbers of its JSON line; a name with `_to_` or `ratio` compares two of them, and `_per_s` is a rate.

    >>> [figure.unit for figure in read({"benchmark": "enqueue", "one_per_s": 9000.0, "one_to_bare": 0.9, "kept": True})]
    ['jobs/s', 'ratio']
    """
    numbers = {
        name: value for name, value in told.items() if isinstance(value, float | int) and not isinstance(value, bool)
    }
    return [
        Figure(f"enqueue.{name}", name.replace("_", " "), _unit(name), (float(value),))
        for name, value in numbers.items()
        if _unit(name)
    ]


def _unit(name: str) -> str:
    if "_to_" in name or "ratio" in name:
        return RATIO
    return "jobs/s" if name.endswith("_per_s") else ""
