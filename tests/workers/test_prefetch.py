"""How many jobs a worker may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.workers.prefetch import HELD_S, MOST, Prefetch


def test_a_worker_that_knows_nothing_yet_takes_one_job() -> None:
    assert Prefetch("auto").count == 1


def test_a_fixed_setting_is_never_changed_by_durations() -> None:
    prefetch = Prefetch(7)

    prefetch.learn(100.0)

    assert prefetch.count == 7


@pytest.mark.parametrize(
    ("duration_s", "count"), [(0.0, MOST), (0.0001, MOST), (0.001, 20), (0.01, 2), (0.02, 1), (9, 1)]
)
def test_so_many_jobs_are_held_as_take_little_time_together(duration_s: float, count: int) -> None:
    prefetch = Prefetch("auto")

    prefetch.learn(duration_s)

    assert prefetch.count == count


def test_one_slow_job_counts_at_once_and_fast_ones_only_by_and_by() -> None:
    prefetch = Prefetch("auto")
    for _ in range(100):
        prefetch.learn(0.0001)

    prefetch.learn(1.0)
    assert prefetch.count == 1
    prefetch.learn(0.0001)
    assert prefetch.count == 1
    for _ in range(200):
        prefetch.learn(0.0001)
    assert prefetch.count == MOST


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_the_count_stays_in_its_bounds_and_held_work_short(durations: list[float]) -> None:
    prefetch = Prefetch("auto")
    for duration_s in durations:
        prefetch.learn(duration_s)

    assert 1 <= prefetch.count <= MOST
    assert prefetch.count == 1 or prefetch.count * durations[-1] <= HELD_S * 1.001
