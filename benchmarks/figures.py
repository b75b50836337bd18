"""What is measured: figures with a value for each round, and the promises they are held against. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: In which direction a figure improves.
Better = Literal["higher", "lower"]
#: Unit of a figure that compares two measurements of the same round: only these are promised and kept as base.
RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run."""

    name: str
    what: str
    unit: str
    #: A value for each round, in their order.
    rounds: tuple[float, ...]
    better: Better = "higher"
    #: What is promised; None = nothing.
    aim: float | None = None
    #: Whether others left the machine alone, for each round; empty = in all.
    quiet: tuple[bool, ...] = ()

    @property
    def counted(self) -> tuple[float, ...]:
        """The values of quiet rounds; all of them when none was quiet."""
        return tuple(value for value, quiet in zip(self.rounds, self.quiet, strict=False) if quiet) or self.rounds

    @property
    def value(self) -> float:
        """The median of what counts."""
        return statistics.median(self.counted)

    @property
    def disturbed(self) -> int:
        """How many rounds were not quiet."""
        return self.quiet.count(False)

    @property
    def kept(self) -> bool | None:
        """Whether the promise is kept; None without a promise."""
        if self.aim is None:
            return None
        return self.value >= self.aim if self.better == "higher" else self.value <= self.aim

    def to_json(self) -> dict[str, Any]:
        """The figure as it is stored."""
        return {
            "what": self.what, "unit": self.unit, "value": self.value, "rounds": list(self.rounds), "better": self.better,
            "aim": self.aim, "kept": self.kept, "quiet": list(self.quiet),
        }  # fmt: skip

    @classmethod
    def from_json(cls, name: str, stored: dict[str, Any]) -> Figure:
        """The figure that was stored."""
        return cls(
            name, stored["what"], stored["unit"], tuple(stored["rounds"]), stored["better"], stored["aim"],
            tuple(stored["quiet"]),
        )  # fmt: skip


def ratio(
    name: str, what: str, over: Figure, under: Figure, *, better: Better = "higher",
    aim: float | None = None,
) -> Figure:  # fmt: skip
    """The quotient of two figures, round by round; quiet where both were."""
    rounds = tuple(one / other for one, other in zip(over.rounds, under.rounds, strict=True))
    both = zip(over.quiet or (True,) * len(rounds), under.quiet or (True,) * len(rounds), strict=True)
    return Figure(name, what, RATIO, rounds, better, aim, tuple(one and other for one, other in both))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies.

    >>> percentile([4, 1, 3, 2], 0.5)
    3
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


#: Reports progress, one line at a time.
Tell = Callable[[str], None]
