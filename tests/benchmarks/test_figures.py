"""Figures, the table of them, and the file they are written to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import write
from benchmarks.figures import Better, Figure, ratio
from benchmarks.table import plain


def test_only_quiet_rounds_count_unless_there_is_none() -> None:
    assert Figure("a", "", "ms", (1, 9, 3), quiet=(True, False, True)).value == 2
    assert Figure("a", "", "ms", (1, 9, 3), quiet=(False, False, False)).value == 3


@pytest.mark.parametrize(
    ("better", "aim", "kept"), [("higher", 2, True), ("higher", 3, False), ("lower", 2, True), ("lower", 1, False)]
)
def test_a_promise_is_held_against_the_median(better: Better, aim: float, kept: bool) -> None:
    assert Figure("a", "", "ms", (1, 2, 9), better, aim).kept is kept


def test_a_ratio_is_made_round_by_round_and_quiet_where_both_were() -> None:
    over = Figure("over", "", "1/s", (10, 20), quiet=(True, True))
    under = Figure("under", "", "1/s", (20, 10), quiet=(True, False))

    found = ratio("r", "over to under", over, under)

    assert list(found.rounds) == [0.5, 2]
    assert list(found.quiet) == [True, False]
    assert found.value == 0.5


def test_the_plain_table_shows_promises_kept_and_broken_and_noise() -> None:
    rows = plain([
        Figure("a", "fast", "jobs/s", (10_000.0, 12_000.0), aim=9_000),
        Figure("b", "slow", "ratio", (0.4, 0.5), aim=0.6, quiet=(True, False)),
    ]).splitlines()  # fmt: skip

    assert rows[1].split() == ["fast", "11,000", "10,000", "12,000", "jobs/s", ">=", "9,000", "kept"]
    assert rows[2].endswith("BROKEN, 1 of 2 rounds disturbed")


def test_figures_survive_the_file(tmp_path: Path) -> None:
    figure = Figure("a", "what", "ratio", (1.0, 2.0), "lower", 3.0, (True, False))

    write(tmp_path / "new" / "figures.json", [figure])

    stored = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert Figure.from_json("a", stored["figures"]["a"]) == figure
    assert stored["about"]["cores"]
