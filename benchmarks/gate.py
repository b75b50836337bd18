"""Has rqsup lost speed? What `make bench-check` decides, from the ratios of a run and those of the stored base. Pure.

Times differ from machine to machine and from hour to hour; quotients of two measurements in one round much less. What is left of the
noise is seen in the rounds themselves: a ratio is judged only where its quiet rounds say the same, but for one in each whole half dozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from benchmarks.figures import RATIO, Better, Figure

#: Part of a ratio that may be lost.
ALLOWED = 0.15
#: Quiet rounds without which nothing is decided.
ROUNDS = 3
#: Quiet rounds of which one may say something else: on a shared host one of six is often far off.
ONE_IN = 6


class Verdict(Enum):
    """What is said of a ratio, and of a run."""

    KEPT = "kept"
    LOST = "lost"
    #: The rounds disagree, or too few of them were quiet.
    NOISY = "too noisy"
    #: The base knows it, the run does not.
    MISSING = "missing"


#: Exit status of each; 75 (EX_TEMPFAIL) = try again on a quieter machine.
STATUS = {Verdict.KEPT: 0, Verdict.LOST: 1, Verdict.MISSING: 1, Verdict.NOISY: 75}


@dataclass(frozen=True, slots=True)
class Judged:
    """One ratio beside its base."""

    name: str
    verdict: Verdict
    base: float
    #: The median of what counts; None = not measured.
    value: float | None


def judge(figures: Iterable[Figure], base: Mapping[str, float]) -> list[Judged]:
    """A verdict for each ratio of the base."""
    measured = {figure.name: figure for figure in figures if figure.unit == RATIO}
    return [_judge(name, value, measured.get(name)) for name, value in base.items()]


def overall(judged: Iterable[Judged]) -> Verdict:
    """The worst of them: what was lost comes before what could not be seen."""
    verdicts = {one.verdict for one in judged}
    for verdict in (Verdict.LOST, Verdict.MISSING, Verdict.NOISY):
        if verdict in verdicts:
            return verdict
    return Verdict.KEPT


def base_of(figures: Iterable[Figure]) -> dict[str, float]:
    """What to store of a run, to compare later ones with.

    Raises:
        ValueError: it is too noisy to be a base.
    """
    ratios = [figure for figure in figures if figure.unit == RATIO]
    unfit = [figure.name for figure in ratios if _judge(figure.name, figure.value, figure).verdict is not Verdict.KEPT]
    if unfit:
        raise ValueError(f"too noisy to be a base: {', '.join(unfit)}; run it again on a quiet machine")
    return {figure.name: round(figure.value, 4) for figure in ratios}


def stored(text: Mapping[str, Any]) -> dict[str, float]:
    """The ratios in the file of the base."""
    return {name: float(value) for name, value in text["ratios"].items()}


def _judge(name: str, base: float, figure: Figure | None) -> Judged:
    if figure is None:
        return Judged(name, Verdict.MISSING, base, None)
    quiet = [value for value, undisturbed in zip(figure.rounds, _quiet(figure), strict=True) if undisturbed]
    if len(quiet) < ROUNDS:
        return Judged(name, Verdict.NOISY, base, figure.value)
    passed = [_holds(value, base, figure.better) for value in quiet]
    if min(passed.count(True), passed.count(False)) > len(quiet) // ONE_IN:
        return Judged(name, Verdict.NOISY, base, figure.value)
    kept = passed.count(True) > passed.count(False)
    return Judged(name, Verdict.KEPT if kept else Verdict.LOST, base, figure.value)


def _quiet(figure: Figure) -> tuple[bool, ...]:
    return figure.quiet or (True,) * len(figure.rounds)


def _holds(value: float, base: float, better: Better) -> bool:
    return value >= base * (1 - ALLOWED) if better == "higher" else value <= base * (1 + ALLOWED)
