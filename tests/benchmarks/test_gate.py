"""When the regression gate opens, closes, and refuses to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.check import compare, write_base
from benchmarks.figures import Better, Figure
from benchmarks.gate import STATUS, Verdict, base_of, judge, overall


def decide(*rounds: float, base: float = 1.0, better: Better = "higher", quiet: tuple[bool, ...] = ()) -> Verdict:
    figure = Figure("drain", "", "ratio", rounds, better, quiet=quiet)
    return overall(judge([figure], {"drain": base}))


def test_up_to_fifteen_percent_may_be_lost() -> None:
    assert decide(0.86, 0.87, 0.9) is Verdict.KEPT
    assert decide(0.84, 0.80, 0.7) is Verdict.LOST


def test_what_is_better_lower_is_lost_upwards() -> None:
    assert decide(1.1, 1.14, 0.5, better="lower") is Verdict.KEPT
    assert decide(1.2, 1.3, 1.4, better="lower") is Verdict.LOST


def test_rounds_that_disagree_are_noise_whatever_their_median() -> None:
    assert decide(1.0, 1.0, 0.5) is Verdict.NOISY
    assert decide(0.5, 0.5, 1.0) is Verdict.NOISY


def test_of_six_rounds_one_may_disagree_but_not_two() -> None:
    assert decide(1.0, 1.0, 1.0, 0.5, 1.0, 1.0) is Verdict.KEPT
    assert decide(0.5, 0.5, 0.5, 1.0, 0.5, 0.5) is Verdict.LOST
    assert decide(1.0, 1.0, 1.0, 0.5, 1.0, 0.5) is Verdict.NOISY
    assert decide(1.0, 1.0, 1.0, 0.5, 1.0) is Verdict.NOISY


def test_too_few_quiet_rounds_are_noise_even_when_all_are_good() -> None:
    assert decide(1.0, 1.0) is Verdict.NOISY
    assert decide(1.0, 1.0, 1.0, 1.0, quiet=(True, False, False, True)) is Verdict.NOISY


def test_a_disturbed_round_neither_accuses_nor_acquits() -> None:
    assert decide(1.0, 0.1, 1.0, 1.0, quiet=(True, False, True, True)) is Verdict.KEPT
    assert decide(0.5, 1.0, 0.5, 0.5, quiet=(True, False, True, True)) is Verdict.LOST


def test_times_are_not_compared_and_a_missing_ratio_fails() -> None:
    faster = Figure("drain", "", "jobs/s", (1, 1, 1))

    assert overall(judge([faster], {"drain": 100.0})) is Verdict.MISSING


def test_a_loss_counts_more_than_noise() -> None:
    figures = [Figure("lost", "", "ratio", (0.1, 0.1, 0.1)), Figure("noisy", "", "ratio", (0.1, 1, 1))]

    assert overall(judge(figures, {"lost": 1.0, "noisy": 1.0})) is Verdict.LOST


def test_each_verdict_has_its_exit_status() -> None:
    assert [STATUS[verdict] for verdict in (Verdict.KEPT, Verdict.LOST, Verdict.NOISY)] == [0, 1, 75]


def test_a_noisy_run_cannot_become_the_base() -> None:
    assert base_of([Figure("drain", "", "ratio", (1.0, 1.1, 0.9)), Figure("rate", "", "1/s", (5,))]) == {"drain": 1.0}
    with pytest.raises(ValueError, match="drain"):
        base_of([Figure("drain", "", "ratio", (1.0, 2.0, 0.2))])


def test_the_command_writes_a_base_and_compares_the_parts_measured_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.json"
    was = [Figure("drain/limit", "", "ratio", (1.0, 1.0, 1.0)), Figure("steady", "", "ratio", (0.9, 0.9, 0.9))]

    assert write_base(base, was) == 0
    assert json.loads(base.read_text()) == {"ratios": {"drain/limit": 1.0, "steady": 0.9}}
    assert compare(base, was) == 0
    assert compare(base, was[:1]) == 1
    assert compare(base, was[:1], ["drain"]) == 0
    assert compare(base, [Figure("drain/limit", "", "ratio", (0.1, 1.0, 1.0)), was[1]]) == 75
    assert "too noisy to tell" in capsys.readouterr().out
