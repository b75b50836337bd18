"""The plan: a table of cases, and random pools that have to end well."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.supervisor.plan import (
    Abandon,
    Action,
    ChildView,
    Drain,
    Kill,
    Overdue,
    Phase,
    Spawn,
    View,
    decide,
    next_deadline,
)

STARTING, READY, DRAINING, DYING = Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.DYING


def child(name: str, phase: Phase = READY, generation: int = 1, *, busy: bool = False, deadline: float | None = None,
          hard: float | None = None, idle: float | None = None, worn: bool = False) -> ChildView:  # fmt: skip
    return ChildView(name, generation, phase, busy, deadline, hard, idle_deadline=idle, worn=worn)


def view(*children: ChildView, target: int = 2, generation: int = 1, now: float = 100.0, can_fork: bool = True,
         not_before: float = 0.0, trial: bool = False, pardon_until: float = 0.0, recycle_most: int = 1,
         surge: int = 1, redis_ok: bool = True) -> View:  # fmt: skip
    return View(
        now, target, generation, can_fork, not_before, trial, pardon_until, children, recycle_most=recycle_most,
        surge=surge, redis_ok=redis_ok,
    )  # fmt: skip


CASES: dict[str, tuple[View, list[Action]]] = {
    "a canary starts alone": (view(child("a"), child("b"), generation=2, trial=True), [Spawn()]),
    "a canary stays alone while it is on trial": (
        view(child("a"), child("b"), child("c", generation=2), generation=2, trial=True),
        [],
    ),
    "after the trial an old worker leaves": (
        view(child("a"), child("b"), child("c", generation=2), generation=2),
        [Drain("a")],
    ),
    "a stop does not wait for a trial": (view(child("a"), target=0, trial=True), [Drain("a")]),
    "an empty pool is filled at once": (view(), [Spawn(), Spawn()]),
    "a full pool is left alone": (view(child("a"), child("b", STARTING)), []),
    "a dying worker is replaced": (view(child("a"), child("b", DYING)), [Spawn()]),
    "a draining worker is replaced": (view(child("a"), child("b", DRAINING)), [Spawn()]),
    "without a zygote nothing starts": (view(can_fork=False), []),
    "after failed starts there is a pause": (view(not_before=100.1), []),
    "the pause ends at its time": (view(not_before=100.0), [Spawn(), Spawn()]),
    "of too many, those that start go first, then idle ones": (
        view(child("busy", busy=True), child("idle"), child("new", STARTING), target=1),
        [Drain("new"), Drain("idle")],
    ),
    "a stop drains all": (view(child("a", busy=True), child("b"), target=0), [Drain("b"), Drain("a")]),
    "a stop drains another generation first": (view(child("a"), child("b", generation=2), target=0), [Drain("b")]),
    "a roll starts one new worker": (view(child("a"), child("b"), generation=2), [Spawn()]),
    "a roll waits for the new worker": (view(child("a"), child("b"), child("n", STARTING, 2), generation=2), []),
    "a ready new worker drains one old one, an idle one": (
        view(child("a", busy=True), child("b"), child("n", READY, 2), generation=2),
        [Drain("a")],
    ),
    "a roll in batches starts several new workers": (
        view(child("a"), child("b"), generation=2, surge=2),
        [Spawn(), Spawn()],
    ),
    "a roll in batches has no more than its batch too many": (
        view(child("a"), child("b"), child("n", READY, 2), generation=2, surge=2),
        [Spawn(), Drain("a")],
    ),
    "old workers that start go at once": (view(child("a", STARTING), child("b"), generation=2), [Spawn(), Drain("a")]),
    "the last old one goes when all new ones are ready": (
        view(child("a"), child("n", READY, 2), child("m", READY, 2), generation=2),
        [Drain("a")],
    ),
    "a worker that does not start is killed": (
        view(child("a"), child("b", STARTING, deadline=100.0)),
        [Kill("b", Overdue.BOOT)],
    ),
    "a job whose drain takes too long is to give up": (
        view(child("a"), child("b"), child("c", DRAINING, deadline=99.0, hard=98.0)),
        [Abandon("c")],
    ),
    "a job that does not give up is killed": (
        view(child("a"), child("b"), replace(child("c", DRAINING, deadline=99.0), abandoned=True)),
        [Kill("c", Overdue.DRAIN)],
    ),
    "a job past its hard deadline is killed": (view(child("a"), child("b", hard=100.0)), [Kill("b", Overdue.JOB)]),
    "an idle worker that stands still is killed": (view(child("a"), child("b", idle=100.0)), [Kill("b", Overdue.IDLE)]),
    "while Redis is away, standing still is no fault": (view(child("a"), child("b", idle=1.0), redis_ok=False), []),
    "nobody is killed before the deadline": (view(child("a", hard=100.1), child("b", STARTING, deadline=100.1)), []),
    "nobody is killed twice": (view(child("a"), child("b"), child("c", DYING, deadline=1.0, hard=1.0)), []),
    "a worn worker is replaced before it leaves": (view(child("a", worn=True), child("b")), [Spawn()]),
    "a worn worker works on while its replacement starts": (
        view(child("a", worn=True), child("b"), child("n", STARTING)),
        [],
    ),
    "a worn worker leaves when its replacement is ready, not the idle one": (
        view(child("a", worn=True, busy=True), child("b"), child("n")),
        [Drain("a")],
    ),
    "worn workers are replaced one after the other": (
        view(child("a", worn=True), child("b", worn=True), child("n")),
        [Drain("a")],
    ),
    "a worn worker that drains still counts": (
        view(child("a", DRAINING, worn=True), child("b", worn=True), child("n")),
        [],
    ),
    "a large pool recycles several at a time": (
        view(child("a", worn=True), child("b", worn=True), child("c", worn=True), target=3, recycle_most=2),
        [Spawn(), Spawn()],
    ),
    "a dead worker is replaced besides": (view(child("a", worn=True)), [Spawn(), Spawn()]),
    "no worn worker leaves while nothing can start": (view(child("a", worn=True), child("b"), can_fork=False), []),
    "no worn worker is recycled during a roll": (
        view(child("n", READY, 2, worn=True), child("a", worn=True), child("m", STARTING, 2), generation=2),
        [],
    ),
    "of too many, worn ones go first": (view(child("a"), child("w", worn=True, busy=True), target=1), [Drain("w")]),
    "nobody is killed during a pardon": (
        view(child("a", hard=1.0), child("b", STARTING, deadline=1.0), pardon_until=100.1),
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_plan(name: str) -> None:
    seen, actions = CASES[name]

    assert decide(seen) == actions


@pytest.mark.parametrize(
    ("seen", "deadline"),
    [
        (view(child("a")), None),
        (view(child("a", hard=120.0), child("b", STARTING, deadline=110.0)), 110.0),
        (view(child("a", DYING, deadline=50.0)), None),
        (view(not_before=105.0), 105.0),
        (view(not_before=95.0), None),
        (view(child("a", hard=90.0), pardon_until=103.0), 103.0),
    ],
)
def test_the_plan_looks_again_at_the_next_deadline(seen: View, deadline: float | None) -> None:
    assert next_deadline(seen) == deadline


@dataclass
class SimulatedPool:
    """A pool that does what the plan says, and what chance does to it."""

    target: int
    generation: int = 1
    now: float = 0.0
    pardon_until: float = 0.0
    can_fork: bool = True
    born: int = 0
    recycle_most: int = 1
    surge: int = 1
    children: dict[str, ChildView] = field(default_factory=dict)

    def view(self) -> View:
        return view(
            *self.children.values(), target=self.target, generation=self.generation, now=self.now,
            can_fork=self.can_fork, pardon_until=self.pardon_until, recycle_most=self.recycle_most,
            surge=self.surge,
        )  # fmt: skip

    def active(self) -> list[ChildView]:
        return [one for one in self.children.values() if one.phase in {STARTING, READY}]

    def ready(self) -> int:
        return sum(one.phase is READY for one in self.children.values())

    def look(self) -> None:
        """Do what the master does at each look, and check every promise."""
        for _ in range(50):
            seen = self.view()
            actions = decide(seen)
            if not actions:
                return
            active = len(self.active())
            for action in actions:
                self.act(action, seen)
            rolling = any(one.generation != self.generation for one in seen.children if one.phase in {STARTING, READY})
            if rolling:
                assert len(self.active()) <= max(active, self.target + self.surge)
            else:
                assert len(self.active()) <= max(active, self.target + self.recycle_most)
        pytest.fail(f"the plan does not come to rest: {self.view()}")

    def act(self, action: Action, seen: View) -> None:
        match action:
            case Spawn():
                assert self.can_fork
                self.born += 1
                name = f"w{self.born}"
                self.children[name] = child(name, STARTING, self.generation, deadline=self.now + 10)
            case Drain(worker):
                before = self.ready()
                self.change(worker, phase=DRAINING, deadline=self.now + 10)
                assert self.ready() >= min(self.target, before)
            case Abandon(worker):
                assert self.now >= (self.children[worker].deadline or 0)
                self.change(worker, abandoned=True, deadline=self.now + 10)
            case Kill(worker, _):
                one = self.children[worker]
                deadlines = [time for time in (one.deadline, one.hard_deadline) if time is not None]
                assert self.now >= min(deadlines)
                assert self.now >= seen.pardon_until
                self.change(worker, phase=DYING)

    def change(self, worker: str, **fields: object) -> None:
        self.children[worker] = replace(self.children[worker], **fields)  # type: ignore[arg-type]

    def happen(self, event: str, luck: random.Random) -> None:  # noqa: C901 - one case per event, each a line
        """One thing that can happen to a pool."""
        one = luck.choice(sorted(self.children)) if self.children else None
        match event:
            case "scale":
                self.target = luck.randint(0, 5)
            case "reload":
                self.generation += 1
            case "roll back":
                self.generation = max(1, self.generation - 1)
            case "stall":
                self.now += 20
                self.pardon_until = self.now + 5
            case "later":
                self.now += luck.choice([1, 11])
            case "zygote":
                self.can_fork = not self.can_fork
            case "die" if one:
                del self.children[one]
            case "ready" if one and self.children[one].phase is STARTING:
                self.change(one, phase=READY, deadline=None)
            case "work" if one and self.children[one].phase is READY:
                self.change(one, busy=True, hard_deadline=self.now + 3)
            case "wear" if one and self.children[one].phase is READY:
                self.change(one, worn=True)
            case "rest" if one:
                self.change(one, busy=False, hard_deadline=None)

    def settle(self) -> None:
        """From now on all goes well: starting workers become ready, leaving ones leave."""
        for _ in range(80):
            self.look()
            for name, one in list(self.children.items()):
                if one.phase is STARTING:
                    self.change(name, phase=READY, deadline=None)
                elif one.phase is not READY:
                    del self.children[name]


EVENTS = [
    "scale",
    "reload",
    "roll back",
    "stall",
    "later",
    "zygote",
    "die",
    "ready",
    "ready",
    "ready",
    "work",
    "rest",
    "wear",
    "wear",
]


@given(
    st.integers(0, 5), st.integers(1, 3), st.lists(st.sampled_from(EVENTS), max_size=40),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_any_pool_keeps_its_promises_and_reaches_its_target(
    target: int, recycle_most: int, events: list[str], luck: random.Random
) -> None:
    pool = SimulatedPool(target, recycle_most=recycle_most, surge=recycle_most)
    for event in events:
        pool.happen(event, luck)
        pool.look()

    pool.can_fork = True
    pool.settle()

    assert [one.phase for one in pool.children.values()] == [READY] * pool.target
    assert {one.generation for one in pool.children.values()} <= {pool.generation}
    assert not any(one.worn for one in pool.children.values())


@given(st.integers(1, 6), st.integers(1, 3), st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_recycling_alone_never_takes_the_pool_below_its_target(target: int, most: int, worn: list[int]) -> None:
    pool = SimulatedPool(target, recycle_most=most, surge=most)
    pool.settle()
    for number in worn:
        pool.change(sorted(pool.children)[number % target], worn=True, busy=number % 2 == 0)
    for _ in range(100):
        pool.look()
        assert pool.ready() >= target
        assert sum(one.worn and one.phase is DRAINING for one in pool.children.values()) <= most
        # The slowest course: one thing at a time.
        moving = [name for name, one in sorted(pool.children.items()) if one.phase is not READY]
        if not moving:
            break
        if pool.children[moving[0]].phase is STARTING:
            pool.change(moving[0], phase=READY, deadline=None)
        else:
            del pool.children[moving[0]]
    assert [one.worn for one in pool.children.values()] == [False] * target


@given(st.lists(st.sampled_from(EVENTS), max_size=30), st.randoms(use_true_random=False))
def test_a_stop_empties_any_pool(events: list[str], luck: random.Random) -> None:
    pool = SimulatedPool(4)
    for event in events:
        pool.happen(event, luck)
        pool.look()

    pool.target = 0
    pool.look()

    assert pool.active() == []
