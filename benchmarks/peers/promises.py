"""What rqsup promises beside its peers, as quotients inside of one round. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers.scenarios.scale import Row

OURS = "rqsup"
#: Its client is compiled: being 90 % as fast is enough.
COMPILED = ("ardiq",)


@dataclass(frozen=True, slots=True)
class Promise:
    """At least so many times as good as each of these peers."""

    words: str
    scenario: str
    key: str
    #: Empty = every peer that was measured, apart from those in `but`.
    peers: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    factor: float = 1.0
    #: More is better, or less is.
    more: bool = True
    #: The setting of rqsup that it is about, where this version has it.
    ours: str = OURS
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one: the peer that came closest, and how many times as good rqsup was."""

    promise: Promise
    closest: str
    times: float

    @property
    def kept(self) -> bool:
        """Whether it holds."""
        return self.times >= self.promise.factor


def _enqueue(words: str, how: str, factor: float, **choice: Any) -> Promise:
    return Promise(words, "enqueue", "per_s", factor=factor, where={"how": how}, **choice)


PROMISES = (
    Promise("drain, beside Dramatiq", "drain", "per_s", ("dramatiq",), factor=5.0),
    Promise("drain, beside cauli", "drain", "per_s", ("cauli",), factor=1.3),
    Promise("drain with settle: each, beside Dramatiq", "drain", "per_s", ("dramatiq",), factor=3.0, ours="rqsup-each"),
    Promise("drain with settle: each, beside ardiq", "drain", "per_s", ("ardiq",), ours="rqsup-each"),
    _enqueue("enqueue one by one, beside pure Python", "one", 1.0, but=COMPILED),
    _enqueue("enqueue one by one, beside compiled clients", "one", 0.9, peers=COMPILED),
    _enqueue("enqueue in batches", "batch", 1.2),
    Promise("pick-up when idle, median", "pickup", "p50_ms", more=False),
    Promise("pick-up when idle, 99th percentile", "pickup", "p99_ms", more=False),
)


def outcomes(results: Mapping[str, Sequence[Row]]) -> list[Outcome]:
    """What became of those promises for which there are figures."""
    found = [_outcome(promise, results.get(promise.scenario, ())) for promise in PROMISES]
    return [outcome for outcome in found if outcome is not None]


def _outcome(promise: Promise, rows: Sequence[Row]) -> Outcome | None:
    names = {row["peer"] for row in rows}
    # Without a setting of its own, the default is the one way there is.
    ours = promise.ours if promise.ours in names else OURS
    others = [name for name in sorted(names) if not name.startswith(OURS) and name not in promise.but]
    times = {
        name: statistics.median(quotients)
        for name in others
        if (not promise.peers or name in promise.peers) and (quotients := _quotients(promise, rows, ours, name))
    }
    if not times:
        return None
    closest = min(times, key=lambda name: times[name])
    return Outcome(promise, closest, times[closest])


def _quotients(promise: Promise, rows: Sequence[Row], ours: str, theirs: str) -> list[float]:
    """How many times as good, in each round that has figures of both."""
    mine, other = _by_round(promise, rows, ours), _by_round(promise, rows, theirs)
    pairs = [(mine[number], other[number]) for number in mine if number in other]
    return [one / two if promise.more else two / one for one, two in pairs]


def _by_round(promise: Promise, rows: Sequence[Row], peer: str) -> dict[int, float]:
    """The figure of each round: a quiet one, where the round has one."""
    found: dict[int, float] = {}
    fitting = [row for row in rows if row["peer"] == peer and promise.key in row]
    for row in sorted(fitting, key=lambda row: bool(row.get("quiet", True))):
        if all(row.get(name) == wanted for name, wanted in promise.where.items()):
            found[row["round"]] = row[promise.key]
    return found
