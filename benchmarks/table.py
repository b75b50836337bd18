"""Figures as a table for people: by rich on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.figures import RATIO, Figure

HEAD = ("what", "median", "lowest", "highest", "unit", "promised", "")


def show(figures: Sequence[Figure]) -> None:
    """Print the table on standard output."""
    if not sys.stdout.isatty():
        print(plain(figures))
        return
    # Only here: who pipes the output away needs no rich.
    from rich.console import Console
    from rich.table import Table

    table = Table(title="rqsup")
    for number, head in enumerate(HEAD):
        table.add_column(head, justify="right" if number in {1, 2, 3} else "left")
    for figure in figures:
        style = {True: "green", False: "red", None: ""}[figure.kept]
        table.add_row(*cells(figure), style=style)
    Console().print(table)


def plain(figures: Sequence[Figure]) -> str:
    """The table in plain characters."""
    rows = [HEAD, *map(cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number in {1, 2, 3} else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def cells(figure: Figure) -> tuple[str, ...]:
    """One row of it."""
    several = len(figure.counted) > 1
    promise = (
        "" if figure.aim is None else f"{'>=' if figure.better == 'higher' else '<='} {number(figure.aim, figure.unit)}"
    )
    verdict = {True: "kept", False: "BROKEN", None: ""}[figure.kept]
    noise = f"{figure.disturbed} of {len(figure.quiet)} rounds disturbed" if figure.disturbed else ""
    return (
        figure.what, number(figure.value, figure.unit), number(min(figure.counted), figure.unit) if several else "",
        number(max(figure.counted), figure.unit) if several else "", figure.unit, promise,
        ", ".join(filter(None, (verdict, noise))),
    )  # fmt: skip


def number(value: float, unit: str) -> str:
    """A number with the digits that mean something.

    >>> number(0.4567, "ratio"), number(12345.6, "jobs/s"), number(0.123, "ms"), number(0.0, "jobs")
    ('0.457', '12,346', '0.12', '0')
    """
    if unit in {RATIO, "share"}:
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
