"""What the master should do next, as a pure function of what it sees.

The same few rules make start, restart, scaling, rolling reload, roll back and stop: they only differ
in the target and in the generation that is wanted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Phase(enum.StrEnum):
    """A worker's stage, as the master sees it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DYING = "dying"


@dataclass(frozen=True, slots=True)
class ChildView:
    """What the plan needs to know of one worker. Times are seconds of CLOCK_MONOTONIC."""

    worker: str
    generation: int
    phase: Phase
    busy: bool
    #: When its start or its drain has taken too long.
    deadline: float | None = None
    #: When its current job has to be ended from outside.
    hard_deadline: float | None = None
    #: Its job was told to give up already.
    abandoned: bool = False
    #: It has worked enough (supervisor/recycle.py): another should take its place.
    worn: bool = False
    #: When it has to have turned its loop, although it has no job.
    idle_deadline: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What the plan looks at."""

    now: float
    #: Workers wanted, and the generation they should be of.
    target: int
    generation: int
    #: The wanted generation's zygote is ready, and no canary of it has failed.
    can_fork: bool
    #: No start before this time: failed starts slow the pool down.
    not_before: float
    #: A canary of the wanted generation is on trial: it stays alone, and no old worker leaves.
    trial: bool
    #: No kill for lateness before this time: the master itself was late.
    pardon_until: float
    children: tuple[ChildView, ...]
    #: Most workers that are recycled at the same time.
    recycle_most: int = 1
    #: Most workers of a new generation that start at the same time while the old one still works.
    surge: int = 1
    #: False while Redis is away: an idle worker may then be held up by it, and owes no turn.
    redis_ok: bool = True


@dataclass(frozen=True, slots=True)
class Spawn:
    """Have one more worker forked."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Let a worker finish its job and leave."""

    worker: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Have a draining worker's job give up: its time to finish is over."""

    worker: str


class Overdue(enum.StrEnum):
    """Why a worker is killed by the clock."""

    BOOT = "it did not become ready in time"
    JOB = "hard timeout"
    DRAIN = "drain deadline"
    IDLE = "idle, it did not turn its loop"


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker from outside."""

    worker: str
    overdue: Overdue


Action = Spawn | Drain | Abandon | Kill


def decide(view: View) -> list[Action]:
    """The actions that bring the pool nearer to its target.

    While another generation's workers are still active, new ones come a few at a time, and an old one is
    drained only when more than `target` are ready: so ready workers never fall below the target.
    Worn workers are replaced in the same way, a few at a time, while no other generation is active.
    """
    return [*_overdue(view), *_spawn(view), *_drain(view)]


def next_deadline(view: View) -> float | None:
    """When to decide again although nothing happened; None = only when something does."""
    times = [time for child in view.children if child.phase is not Phase.DYING for time in _deadlines(child, view)]
    if view.not_before > view.now:
        times.append(view.not_before)
    if not times:
        return None
    return max(min(times), view.pardon_until)


def _deadlines(child: ChildView, view: View) -> list[float]:
    idle_deadline = child.idle_deadline if view.redis_ok else None
    return [time for time in (child.deadline, child.hard_deadline, idle_deadline) if time is not None]


def _overdue(view: View) -> list[Action]:
    if view.now < view.pardon_until:
        return []
    kills: list[Action] = []
    for child in view.children:
        if child.phase is Phase.DYING:
            continue
        if child.deadline is not None and view.now >= child.deadline:
            kills.append(_end(child))
        elif child.hard_deadline is not None and view.now >= child.hard_deadline:
            kills.append(Kill(child.worker, Overdue.JOB))
        elif view.redis_ok and child.idle_deadline is not None and view.now >= child.idle_deadline:
            kills.append(Kill(child.worker, Overdue.IDLE))
    return kills


def _end(child: ChildView) -> Action:
    if child.phase is Phase.STARTING:
        return Kill(child.worker, Overdue.BOOT)
    return Kill(child.worker, Overdue.DRAIN) if child.abandoned else Abandon(child.worker)


def _spawn(view: View) -> list[Action]:
    if not view.can_fork or view.now < view.not_before:
        return []
    active = _active(view)
    wanted = [child for child in active if child.generation == view.generation]
    missing = (min(1, view.target) if view.trial else view.target + _recycled(view)) - len(wanted)
    if len(wanted) < len(active):
        starting = sum(child.phase is Phase.STARTING for child in wanted)
        room = view.target + view.surge - len(active)
        missing = min(missing, room, view.surge - starting)
    return [Spawn() for _ in range(missing)]


def _drain(view: View) -> list[Action]:
    if view.trial and view.target:
        return []
    active = _active(view)
    old = [child for child in active if child.generation != view.generation]
    ready = sum(child.phase is Phase.READY for child in active)
    ready_wanted = ready - sum(child.phase is Phase.READY for child in old)
    if ready_wanted >= view.target:
        surplus = old
    else:
        # A starting worker of an unwanted generation takes room and gives none: it goes at once.
        surplus = [child for child in old if child.phase is Phase.STARTING]
        surplus += [child for child in old if child.phase is Phase.READY][: max(0, ready - view.target)]
    if not old:
        surplus = _too_many(view, active) or _relieved(view, active, ready)
    return [Drain(child.worker) for child in sorted(surplus, key=lambda child: child.busy)]


def _too_many(view: View, active: list[ChildView]) -> list[ChildView]:
    """Workers beyond the target: starting ones first, then worn, then idle ones, which leave at once."""
    count = len(active) - view.target - _recycled(view)
    by_worth = sorted(active, key=lambda child: (child.phase is Phase.READY, not child.worn, child.busy))
    return by_worth[: max(0, count)]


def _relieved(view: View, active: list[ChildView], ready: int) -> list[ChildView]:
    """Worn workers whose replacements are ready, idle ones first."""
    worn = sorted(_worn(active), key=lambda child: child.busy)
    return worn[: max(0, min(_recycled(view), ready - view.target))]


def _recycled(view: View) -> int:
    """Workers to have beyond the target, so that as many worn ones can leave."""
    active = _active(view)
    if view.target == 0 or any(child.generation != view.generation for child in active):
        return 0
    # One that drains still counts: else long jobs would let leaving workers, and their memory, pile up.
    leaving = sum(child.worn and child.phase is Phase.DRAINING for child in view.children)
    return max(0, min(view.recycle_most - leaving, len(_worn(active))))


def _worn(active: list[ChildView]) -> list[ChildView]:
    return [child for child in active if child.worn and child.phase is Phase.READY]


def _active(view: View) -> list[ChildView]:
    return [child for child in view.children if child.phase in {Phase.STARTING, Phase.READY}]
