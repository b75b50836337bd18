"""When a worker has worked enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.settings import WorkerSettings
from rqsup.supervisor.recycle import Limits, Wear, at_a_time, why_kill, why_worn

NONE = Limits.of(WorkerSettings())
MIB = 1 << 20


def wear(*, jobs: int = 0, age_s: float = 0.0, memory: int = 0, luck: float = 0.0) -> Wear:
    return Wear(jobs, age_s, memory, luck)


def limits(*, jobs: int = 0, age_s: float = 0.0, soft: int = 0, hard: int = 0, jitter: float = 0.0) -> Limits:
    return Limits(jobs, age_s, soft, hard, jitter)


sizes = st.integers(0, 1 << 40)
shares = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10**9), st.floats(0, 1e9), sizes, shares)
def test_without_limits_no_worker_is_ever_worn_or_killed(jobs: int, age_s: float, memory: int, luck: float) -> None:
    assert not why_worn(Wear(jobs, age_s, memory, luck), NONE)
    assert not why_kill(memory, NONE)
    assert NONE.least_memory == 0


@pytest.mark.parametrize(
    ("seen", "allowed", "words"),
    [
        (wear(jobs=10), limits(jobs=10), "ran 10 jobs (workers.max_jobs)"),
        (wear(age_s=60.04), limits(age_s=60), "is 60.0 s old (workers.max_age)"),
        (wear(memory=64 * MIB), limits(soft=64 * MIB), "uses 64.0 MiB of memory of its own (workers.max_memory)"),
        (wear(memory=64 * MIB), limits(hard=64 * MIB), "uses 64.0 MiB of memory of its own (workers.max_memory_hard)"),
    ],
)
def test_each_limit_has_its_words(seen: Wear, allowed: Limits, words: str) -> None:
    assert words in why_worn(seen, allowed)


def test_just_below_its_limits_a_worker_stays() -> None:
    seen = wear(jobs=9, age_s=59.9, memory=64 * MIB - 1)

    assert not why_worn(seen, limits(jobs=10, age_s=60, soft=64 * MIB, hard=64 * MIB))


def test_a_kill_names_the_figure_and_the_limit() -> None:
    assert why_kill(70 * MIB, limits(hard=64 * MIB)) == (
        "memory limit: used 70.0 MiB, allowed are 64.0 MiB (workers.max_memory_hard)"
    )


@given(st.integers(1, 10**6), shares, st.floats(0, 1))
def test_jitter_only_lowers_a_limit_and_never_by_more_than_its_share(limit: int, luck: float, jitter: float) -> None:
    allowed = limits(jobs=limit, jitter=jitter)

    assert why_worn(wear(jobs=limit, luck=luck), allowed)
    below = int(limit * (1 - jitter)) - 1
    assert below < 1 or not why_worn(wear(jobs=below, luck=luck), allowed)
    assert not why_worn(wear(jobs=0, luck=luck), allowed)


def test_equal_workers_are_worn_at_different_times() -> None:
    allowed = limits(jobs=1000, jitter=0.1)

    worn_at = [
        next(jobs for jobs in range(1001) if why_worn(wear(jobs=jobs, luck=number / 10), allowed))
        for number in range(10)
    ]

    assert worn_at == [1000 - 10 * number for number in range(10)]


@given(sizes, sizes, sizes, shares, st.floats(0, 1))
def test_no_limit_of_memory_is_reached_below_the_least(
    memory: int, soft: int, hard: int, luck: float, jitter: float
) -> None:
    allowed = limits(soft=soft, hard=hard, jitter=jitter)

    if memory < allowed.least_memory or not (soft or hard):
        assert not why_worn(wear(memory=memory, luck=luck), allowed)
        assert not why_kill(memory, allowed)


@given(st.integers(1, 1000), st.floats(0, 1, exclude_min=True))
def test_at_least_one_and_at_most_the_share_is_recycled_at_a_time(target: int, share: float) -> None:
    assert 1 <= at_a_time(target, share) <= max(1, target * share)
    assert at_a_time(40, 0.1) == 4
