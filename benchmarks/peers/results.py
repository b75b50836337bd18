"""The rows of all scenarios, one file each in benchmarks/results/, and medians of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.drain import ROOT
from benchmarks.peers.scenarios.scale import Row

RESULTS = ROOT / "benchmarks/results"


def save(folder: Path, scenario: str, about: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write a scenario's rows. Those of peers that were not measured this time stay."""
    measured = {row["peer"] for row in rows}
    kept = [row for row in load(folder, scenario) if row["peer"] not in measured]
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(row) for row in (*kept, *rows))
    (folder / f"{scenario}.json").write_text(f'{{"about": {json.dumps(about)},\n "rows": [\n  {lines}\n]}}\n')


def load(folder: Path, scenario: str) -> list[Row]:
    """A scenario's rows; none when it was never measured."""
    path = folder / f"{scenario}.json"
    rows: list[Row] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows


def about(folder: Path) -> dict[str, Any]:
    """Where and when the results were measured; of the newest file."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    found: dict[str, Any] = json.loads(files[-1].read_text())["about"] if files else {}
    return found


def values(rows: Sequence[Row], peer: str, key: str, **where: Any) -> list[float]:
    """What was measured of a peer in quiet rounds; in all, if none was quiet."""
    found = [
        row
        for row in rows
        if row["peer"] == peer
        and row.get(key) is not None
        and all(row.get(name) == wanted for name, wanted in where.items())
    ]
    return [row[key] for row in found if row.get("quiet", True)] or [row[key] for row in found]


def median(rows: Sequence[Row], peer: str, key: str, **where: Any) -> float | None:
    """The median of them; None when there is none."""
    found = values(rows, peer, key, **where)
    return statistics.median(found) if found else None


def medians(rows: Sequence[Row], key: str, **where: Any) -> dict[str, float]:
    """The median of each peer that has one, in the order of the rows."""
    found = {peer: median(rows, peer, key, **where) for peer in dict.fromkeys(row["peer"] for row in rows)}
    return {peer: value for peer, value in found.items() if value is not None}


def ranked(figures: dict[str, float], *, best: Callable[..., float]) -> list[str]:
    """The names, best first.

    >>> ranked({"a": 1.0, "b": 2.0}, best=max)
    ['b', 'a']
    """
    return sorted(figures, key=lambda name: figures[name], reverse=best is max)
