"""The number of workers follows the load: single steps, and a day in the life of a queue."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.settings import AutoscaleSettings
from rqsup.supervisor.autoscale import Course, Load, steer

RULES = AutoscaleSettings(enabled=True, min=2, max=8, step=2, cooldown=10, up_wait=1, down_idle=30)


def look(now: float = 100.0, wait_s: float = 0.0, ready: int = 4, busy: int = 0) -> Load:
    return Load(now, wait_s, ready, busy)


CALM = Course(4, 50.0, 60.0)
CASES: dict[str, tuple[Course, Load, int]] = {
    "jobs that wait long bring workers": (Course(4, 50), look(wait_s=1.0), 6),
    "jobs that wait a little do not": (Course(4, 50), look(wait_s=0.9, busy=4), 4),
    "never more than the most": (Course(7, 50), look(wait_s=9, ready=7), 8),
    "at the most nothing changes": (Course(8, 50), look(wait_s=9, ready=8), 8),
    "workers that start are waited for": (Course(4, 50), look(wait_s=9, ready=3), 4),
    "the cool-down is kept on the way up": (Course(4, 90.1), look(wait_s=9), 4),
    "after the cool-down it goes on": (Course(4, 90), look(wait_s=9), 6),
    "idle workers leave after a while": (CALM, look(busy=2), 2),
    "not before": (Course(4, 50, 70.1), look(), 4),
    "not while they have work": (CALM, look(busy=3), 4),
    "not while jobs wait": (CALM, look(wait_s=0.01), 4),
    "the cool-down is kept on the way down": (Course(4, 95, 60), look(), 4),
    "never fewer than the least": (Course(3, 50, 60), look(ready=3), 2),
    "at the least nothing changes": (Course(2, 50, 60), look(ready=2), 2),
    "bounds that a reload moved are obeyed at once": (Course(20, 100), look(), 8),
}


@pytest.mark.parametrize("name", CASES)
def test_one_look(name: str) -> None:
    course, load, target = CASES[name]

    assert steer(course, load, RULES).target == target


def test_calm_is_counted_from_its_begin_and_forgotten_with_the_first_job() -> None:
    calm = steer(Course(4, 50), look(now=100), RULES)
    assert calm.calm_since == 100
    assert steer(calm, look(now=110), RULES).calm_since == 100
    assert steer(calm, look(now=110, wait_s=0.1), RULES).calm_since is None
    assert steer(calm, look(now=110, busy=3), RULES).calm_since is None


@dataclass
class Queue:
    """Jobs that arrive, wait and are run by workers that take a moment to start; one step a second."""

    rules: AutoscaleSettings
    arrivals: Callable[[int], int]
    job_s: int
    boot_s: int = 1
    course: Course = field(default_factory=lambda: Course(2, -100.0))
    waiting: deque[int] = field(default_factory=deque)
    #: Second in which each worker's job ends; times of workers that start.
    running: list[int] = field(default_factory=list)
    ready_at: list[int] = field(default_factory=lambda: [0, 0])
    targets: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)

    def live(self, seconds: int) -> None:
        for now in range(seconds):
            self.waiting.extend([now] * self.arrivals(now))
            self.running = [end for end in self.running if end > now]
            ready = sum(start <= now for start in self.ready_at)
            while self.waiting and len(self.running) < ready:
                self.waits.append(now - self.waiting.popleft())
                self.running.append(now + self.job_s)
            wait_s = max(0.001, now - self.waiting[0]) if self.waiting else 0.0
            self.course = steer(self.course, Load(now, wait_s, ready, len(self.running)), self.rules)
            missing = self.course.target - len(self.ready_at)
            self.ready_at += [now + self.boot_s] * missing
            self.ready_at = sorted(self.ready_at)[: max(self.course.target, len(self.running))]
            self.targets.append(self.course.target)

    @property
    def turns(self) -> int:
        """How often the number went from rising to falling or back."""
        moves = [b - a for a, b in zip(self.targets, self.targets[1:], strict=False) if a != b]
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise(moves))


def test_a_burst_brings_the_most_workers_and_silence_brings_the_least() -> None:
    queue = Queue(RULES, lambda now: 4 if 10 <= now < 100 else 0, job_s=2)

    queue.live(400)

    assert max(queue.targets) == 8
    assert queue.targets[50] == 8, "three steps, a cool-down between them"
    assert queue.targets[-1] == 2
    assert queue.turns == 1, "up once, down once"


def test_a_steady_load_ends_at_a_steady_number() -> None:
    queue = Queue(RULES, lambda _: 1, job_s=5)

    queue.live(600)

    assert set(queue.targets[200:]) == {6}, "five are busy, steps are of two"
    assert max(queue.waits[300:]) == 0


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 3), st.integers(0, 5),
    st.integers(0, 2**31),
)  # fmt: skip
def test_any_load_keeps_the_bounds_the_cool_down_and_the_step(
    rates: list[int], job_s: int, step: int, boot_s: int, seed: int
) -> None:
    luck = random.Random(seed)
    rules = AutoscaleSettings(enabled=True, min=2, max=8, step=step, cooldown=10, up_wait=1, down_idle=20)
    queue = Queue(rules, lambda now: luck.randint(0, rates[now // 30 % len(rates)]), job_s, boot_s)

    queue.live(900)

    changes = [now for now in range(1, 900) if queue.targets[now] != queue.targets[now - 1]]
    assert all(2 <= target <= 8 for target in queue.targets)
    assert all(b - a >= 10 for a, b in itertools.pairwise(changes))
    assert all(abs(queue.targets[now] - queue.targets[now - 1]) <= step for now in changes)


def test_no_load_of_any_kind_keeps_more_than_the_least() -> None:
    queue = Queue(RULES, lambda now: 6 if now < 60 else 0, job_s=3)

    queue.live(1000)

    assert queue.targets[-1] == RULES.min
    assert not queue.waiting
