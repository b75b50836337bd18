"""docs/benchmarks.md out of the results: tables, wins and losses alike. Pure, but for the writing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Peer
from benchmarks.peers.promises import OURS, outcomes
from benchmarks.peers.results import medians, ranked
from benchmarks.peers.scenarios.scale import Row

#: All rows, by scenario.
Results = Mapping[str, Sequence[Row]]
INTRODUCTION = """# Benchmarks

rqsup beside other queues, made by `make bench-peers`: everything below is written by that command, so that it can be made again on any
machine. Each figure is the median of {rounds} interleaved rounds; rounds during which others used more than 0.15 cores do not count. Every
job's execution is asserted: a drain in which a job did not run is an error, not a figure. Two worker processes and Redis share the
machine. Settings of peers are those that their documentation recommends for throughput ([below](#settings-and-versions)), apart from recovery, where
each has its defaults. In brackets: the ratio to the best.

Machine: {cores} cores, {memory} GiB, {system}, {redis}, without a file for its data. Measured {at}.
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    head: str
    scenario: str
    key: str
    best: Callable[..., float]
    where: Mapping[str, Any]

    def figures(self, results: Results) -> dict[str, float]:
        """The median of each peer."""
        return medians(results.get(self.scenario, ()), self.key, **self.where)


def _column(head: str, scenario: str, key: str, best: Callable[..., float], **where: Any) -> Column:
    return Column(head, scenario, key, best, where)


@dataclass(frozen=True, slots=True)
class Curve:
    """A table with a column for each point that was measured; more is better."""

    scenario: str
    by: str
    key: str
    words: str


TABLES: dict[str, tuple[Column, ...]] = {
    "Throughput": (
        _column("drain, jobs/s", "drain", "per_s", max), _column("enqueue one by one, jobs/s", "enqueue", "per_s", max, how="one"),
        _column("enqueue in batches, jobs/s", "enqueue", "per_s", max, how="batch"),
        _column("worker CPU, us/job", "drain", "worker_us", min), _column("Redis CPU, us/job", "drain", "redis_us", min),
        _column("round trips/job", "drain", "reads_per_job", min),
    ),
    "Pick-up when idle": (
        _column("median, ms", "pickup", "p50_ms", min), _column("99th percentile, ms", "pickup", "p99_ms", min),
    ),
    "Memory (PSS)": (
        _column("2 workers, MiB", "memory", "two_mib", min), _column("8 workers, MiB", "memory", "eight_mib", min),
        _column("one more, MiB", "memory", "one_more_mib", min),
    ),
}  # fmt: skip
#: Tables with a column for each point that was measured.
CURVES = {
    "Workers": Curve("scaling", "workers", "steady_per_s", "Jobs drained per second, by number of worker processes."),
    "Queue length": Curve(
        "length", "length", "per_s",
        "Jobs run per second from the head of a queue so long. Without a figure: it could not be filled in time.",
    ),
    "Payload": Curve("payload", "bytes", "per_s", "Jobs drained per second, by bytes of payload."),
}  # fmt: skip
PLOTS = {
    "Throughput": "drain", "Pick-up when idle": "pickup", "Memory (PSS)": "memory", "Workers": "scaling",
    "Queue length": "length", "Payload": "payload", "Recovery after kill -9": "recovery",
}  # fmt: skip


def write(path: Path, results: Results, peers: Sequence[Peer], about: Mapping[str, Any], plots: Iterable[str]) -> None:
    """Write the document; `plots` are the names of those that exist beside it in `benchmarks/`."""
    path.write_text(text(results, peers, about, set(plots)))


def text(results: Results, peers: Sequence[Peer], about: Mapping[str, Any], plots: set[str]) -> str:
    """The whole document."""
    told = {"rounds": "?", "cores": "?", "memory": "?", "system": "?", "redis": "?", "at": "?"} | dict(about)
    sections = {"What is promised": promised(results), "Wins and losses": wins_and_losses(results)}
    sections |= {title: table(results, columns) for title, columns in TABLES.items()}
    sections |= {title: curve(results, what) for title, what in CURVES.items()}
    sections |= {"Recovery after kill -9": recovery(results.get("recovery", ())), "What failed": errors(results)}
    sections["Settings and versions"] = settings(peers)
    parts = [INTRODUCTION.format(**told)]
    for title, body in sections.items():
        if body:
            plot = f"![{title}](benchmarks/{PLOTS[title]}.svg)\n\n" if PLOTS.get(title) in plots else ""
            parts.append(f"## {title}\n\n{plot}{body}\n")
    return "\n".join(parts)


def table(results: Results, columns: Sequence[Column]) -> str:
    """One row per peer, the best of the first column first."""
    measured = [column.figures(results) for column in columns]
    if not any(measured):
        return ""
    first = ranked(measured[0], best=columns[0].best)
    names = [*first, *(name for name in dict.fromkeys(name for one in measured for name in one) if name not in first)]
    rows = [
        [name, *(_cell(figures, name, column.best) for figures, column in zip(measured, columns, strict=True))]
        for name in names
    ]
    return _markdown(["peer", *(column.head for column in columns)], rows)


def curve(results: Results, what: Curve) -> str:
    """One row per peer, one column per point."""
    points = sorted({row[what.by] for row in results.get(what.scenario, ()) if what.by in row})
    columns = [Column(f"{point:,}", what.scenario, what.key, max, {what.by: point}) for point in points]
    return f"{what.words}\n\n{table(results, columns)}" if columns else ""


def recovery(rows: Sequence[Row]) -> str:
    """Who runs a killed process's jobs again, after how long, and who lost them; all rounds together."""
    rows = [row for row in rows if "held" in row]
    if not rows:
        return ""
    first = medians(rows, "first_again_ms")
    table_rows = []
    for peer in sorted({row["peer"] for row in rows}, key=lambda peer: (first.get(peer, math.inf), peer)):
        held, again, ended, jobs = (
            sum(row[key] for row in rows if row["peer"] == peer) for key in ("held", "again", "ended", "jobs")
        )
        after = f"{first[peer]:,.0f} ms" if peer in first else "never"
        table_rows.append(
            [peer, str(held), after, f"{ended} of {jobs}", f"{held - again} of {held}" if held > again else "none"]
        )
    words = (
        f"{rows[0]['jobs']} jobs of two seconds each, two worker processes; one that runs jobs is killed. Default settings, watched for "
        f"{rows[0]['watched_s']:g} s, sums of all rounds. A job that is not back within that time may come back later, or never."
    )
    head = ["peer", "jobs in the killed process", "first runs again after", "jobs that ended", "not run again"]
    return f"{words}\n\n{_markdown(head, table_rows)}"


def promised(results: Results) -> str:
    """What became of each promise."""
    rows = [
        [
            one.promise.words, f"{one.promise.factor:g}", f"{one.times:.2f} ({one.closest})", "kept" if one.kept else "**broken**",
        ]
        for one in outcomes(results)
    ]  # fmt: skip
    words = "Quotients of two measurements in the same round, median of the rounds; beside the peer that comes closest."
    table_of_them = _markdown(["promise", "times as good, at least", "measured", ""], rows)
    return f"{words}\n\n{table_of_them}" if rows else ""


def wins_and_losses(results: Results) -> str:
    """What rqsup reached beside the best other one, for each figure."""
    rows = []
    for column in (column for columns in TABLES.values() for column in columns):
        figures = column.figures(results)
        others = {name: value for name, value in figures.items() if not name.startswith(OURS)}
        if OURS not in figures or not others:
            continue
        best = ranked(others, best=column.best)[0]
        ours, theirs = figures[OURS], others[best]
        won = ours >= theirs if column.best is max else ours <= theirs
        times = ours / theirs if column.best is max else theirs / ours if ours else float("inf")
        rows.append(
            [column.head, _number(ours), f"{best}: {_number(theirs)}", f"{times:.2f}", "win" if won else "**loss**"]
        )
    return _markdown(["figure", OURS, "best other", "times as good", ""], rows) if rows else ""


def errors(results: Results) -> str:
    """What could not be measured, and why."""
    found = [
        (scenario, row["peer"], row["error"]) for scenario, rows in results.items() for row in rows if "error" in row
    ]
    return "\n".join(f"- {scenario}, {peer}: {error}" for scenario, peer, error in found)


def settings(peers: Sequence[Peer]) -> str:
    """What was run, and who recommends it so."""
    rows = [
        [
            peer.name,
            ", ".join(word for word in peer.requirements if "==" in word) or "this tree",
            f"{peer.settings} ([source]({peer.recommended}))",
        ]
        for peer in peers
    ]
    return _markdown(["peer", "versions", "settings"], rows)


def _cell(figures: Mapping[str, float], name: str, best: Callable[..., float]) -> str:
    if name not in figures:
        return "-"
    top = best(figures.values())
    return f"{_number(figures[name])} ({figures[name] / top:.2f})" if top else _number(figures[name])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
