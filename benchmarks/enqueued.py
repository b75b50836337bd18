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
#: Most that a client may take beside the bare command.
AIM = 1.15


def enqueue(effort: Effort, tell: Tell) -> list[Figure]:
    """Run it in processes of its own; nothing where it is not there."""
    if importlib.util.find_spec(MODULE) is None:
        tell(f"enqueue: no {MODULE} here, left out")
        return []
    rounds: list[list[Figure]] = []
    quiet: list[bool] = []
    while effort.wants_more(quiet):
        with watching() as watch:
            ended = subprocess.run([sys.executable, "-m", MODULE, "1"], check=False, stdout=subprocess.PIPE, text=True)
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
    """Its JSON line: what it compares to the bare command, and the rate of each way to send.

    >>> [figure.name for figure in read({"benchmark": "enqueue", "ratio_to_bare": 1.1, "enqueue": {"per_s": 9000}})]
    ['enqueue/bare', 'enqueue.enqueue']
    """
    compared = [
        Figure(
            "enqueue/bare",
            "enqueue, wall time to that of the bare command",
            RATIO,
            (float(told["ratio_to_bare"]),),
            "lower",
            AIM,
        )
    ]
    rates = [
        Figure(f"enqueue.{name}", name.replace("_", " "), "jobs/s", (float(way["per_s"]),))
        for name, way in told.items()
        if isinstance(way, dict)
    ]
    return [*compared, *rates]
