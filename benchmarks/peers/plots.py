"""SVG plots of the results, by matplotlib (extra `bench`)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.results import medians, ranked
from benchmarks.peers.scenarios.scale import Row

#: Bars: scenario -> figure, title, whether more is better, and a logarithmic axis where peers differ by powers of ten.
BARS = {
    "drain": ("per_s", "No-op jobs drained per second, 2 workers", True, False),
    "memory": ("eight_mib", "Memory of 8 workers, MiB (PSS)", False, False),
    "recovery": (
        "first_again_ms",
        "First job runs again after kill -9, ms (missing: not within the time watched)",
        False,
        True,
    ),
}
#: Lines: scenario -> by what, figure, titles of both axes.
LINES = {
    "scaling": ("workers", "steady_per_s", "worker processes", "jobs drained per second"),
    "length": ("length", "per_s", "jobs in the queue", "jobs run per second"),
    "payload": ("bytes", "per_s", "bytes of payload", "jobs drained per second"),
}
#: rqsup stands out.
OURS, OTHERS = "#c2410c", "#64748b"


def available() -> bool:
    """True where matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(folder: Path, results: Mapping[str, Sequence[Row]]) -> list[str]:
    """Draw what there are rows for; returns the names of the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [name for name in BARS if _bars(folder, name, results.get(name, ()))]
    drawn += [name for name in LINES if _lines(folder, name, results.get(name, ()))]
    drawn += ["pickup"] if _distribution(folder, results.get("pickup", ())) else []
    return drawn


def _bars(folder: Path, name: str, rows: Sequence[Row]) -> bool:
    key, title, more, logarithmic = BARS[name]
    figures = medians(rows, key)
    names = ranked(figures, best=max if more else min)[::-1]
    if not names:
        return False
    figure, axes = _paper()
    bars = axes.barh(names, [figures[one] for one in names], color=[_colour(one) for one in names])
    axes.bar_label(bars, labels=[f"{figures[one]:,.4g}" for one in names], padding=3, fontsize=8)
    if logarithmic:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    _finish(figure, axes, folder / f"{name}.svg", title)
    return True


def _lines(folder: Path, name: str, rows: Sequence[Row]) -> bool:
    by, key, below, beside = LINES[name]
    points = sorted({row[by] for row in rows if by in row})
    if not points:
        return False
    figure, axes = _paper()
    for peer in dict.fromkeys(row["peer"] for row in rows if by in row):
        line = {point: medians(rows, key, **{by: point}).get(peer) for point in points}
        there = [point for point in points if line[point] is not None]
        axes.plot(there, [line[point] for point in there], marker="o", label=peer, **_style(peer))
    axes.set_xscale("log", base=2 if name == "scaling" else 10)
    if name == "scaling":
        axes.set_xticks(points, [str(point) for point in points])
    axes.set_yscale("log")
    axes.legend(fontsize=7, ncols=2)
    axes.set_xlabel(below)
    _finish(figure, axes, folder / f"{name}.svg", beside)
    return True


def _distribution(folder: Path, rows: Sequence[Row]) -> bool:
    curves = {row["peer"]: row["curve_ms"] for row in rows if "curve_ms" in row and row.get("quiet", True)}
    if not curves:
        return False
    figure, axes = _paper()
    for peer, curve in curves.items():
        shares = [100 * number / len(curve) for number in range(len(curve))]
        axes.plot(shares, curve, label=peer, **_style(peer))
    axes.set_yscale("log")
    axes.legend(fontsize=7, ncols=2)
    axes.set_xlabel("percent of the jobs that started sooner")
    _finish(figure, axes, folder / "pickup.svg", "Pick-up when idle, ms")
    return True


def _paper() -> tuple[Any, Any]:
    matplotlib = _matplotlib()
    # Draws without a display.
    matplotlib.use("svg")
    # The same figures make the same file: ids are not random, and no date is written below.
    matplotlib.rcParams["svg.hashsalt"] = "rqsup"
    figure, axes = _matplotlib("pyplot").subplots(figsize=(8, 4.5), layout="constrained")
    return figure, axes


def _matplotlib(part: str = "") -> Any:
    # By name: an extra, which the environment of the type checkers lacks.
    return importlib.import_module(f"matplotlib.{part}" if part else "matplotlib")


def _finish(figure: Any, axes: Any, path: Path, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    _matplotlib("pyplot").close(figure)


def _colour(peer: str) -> str:
    return OURS if peer.startswith("rqsup") else OTHERS


def _style(peer: str) -> dict[str, Any]:
    return {"color": OURS, "linewidth": 2.5, "zorder": 3} if peer.startswith("rqsup") else {"linewidth": 1}
