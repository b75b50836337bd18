from __future__ import annotations

import random

from tests.system.storm.actions import ENDS_MASTER, Kind, draw
from tests.system.storm.gauges import Holdings
from tests.system.storm.leaks import leaks
from tests.system.storm.operator import Pause
from tests.system.storm.promise import Promise, Sample
from tests.system.storm.storm import SLOW_TURN, slow_turns


def sample(
    ready: int, target: int = 4, *, pid: int = 1, state: str = "running", workers: range = range(100, 104)
) -> Sample:
    return Sample(pid, target, ready, state, set(workers))


def promised(*samples: Sample) -> Promise:
    promise = Promise()
    assert [promise.observe(one) for one in samples] == [""] * len(samples)
    return promise


def test_a_master_that_starts_promises_nothing_until_all_are_ready_once() -> None:
    promise = promised(sample(0), sample(2), sample(4))

    assert promise.observe(sample(3)) == "3 workers are ready, promised are 4 (floor 4, 0 killed)"


def test_each_killed_worker_is_allowed_for_until_it_is_buried_and_all_are_ready() -> None:
    promise = promised(sample(4))
    promise.kill(100)

    assert not promise.observe(sample(4)), "not noticed yet"
    assert not promise.observe(sample(3, workers=range(101, 104)))
    assert promise.observe(sample(2, workers=range(101, 104)))
    assert not promise.observe(sample(4, workers=range(101, 105)))
    assert promise.observe(sample(3, workers=range(101, 105)))


def test_fewer_wanted_lowers_the_floor_at_once_and_more_raise_it_when_they_are_ready() -> None:
    promise = promised(sample(4), sample(2, target=2), sample(2, target=6), sample(4, target=6))

    assert promise.observe(sample(1, target=6))
    assert not promise.observe(sample(6, target=6))
    assert promise.observe(sample(5, target=6))


def test_two_orders_between_two_samples_are_both_allowed_for() -> None:
    promise = promised(sample(4))

    promise.scale(1)

    assert not promise.observe(sample(1, target=4))


def test_another_master_and_one_that_stops_promise_nothing() -> None:
    promise = promised(sample(4), sample(0, target=0, state="stopping"), sample(4), sample(0, pid=2))

    assert not promise.observe(sample(1, pid=2))


def test_a_reload_is_allowed_nothing() -> None:
    promise = promised(sample(4), sample(5, state="reloading"))

    assert promise.observe(sample(3, state="reloading"))


def test_an_action_follows_from_seed_and_number_alone() -> None:
    drawn = [draw(7, number) for number in range(1, 400)]

    random.seed(1)
    assert [draw(7, number) for number in range(1, 400)] == drawn
    assert {action.kind for action in drawn} == set(Kind)
    assert not ENDS_MASTER & {draw(7, number, keep_master=True).kind for number in range(1, 400)}


def holdings(fds: int = 30, rss_mb: float = 40.0) -> Holdings:
    return Holdings(fds=fds, memfds=6, rss_mb=rss_mb, threads=1, processes=5, shared=0)


def test_what_grows_is_a_leak_and_what_comes_and_goes_is_none() -> None:
    steady = [holdings(fds=30 + number % 5) for number in range(20)]

    assert leaks(steady) == []
    assert leaks([holdings(fds=30 + number) for number in range(20)]) == [
        "fds grew from 32 to 45 in one life of the master"
    ]
    assert leaks([holdings(rss_mb=40.0 + number) for number in range(20)])
    assert leaks([holdings(), holdings(fds=300)]) == [], "too few looks"


def test_slow_turns_count_unless_somebody_had_stopped_the_master() -> None:
    line = f'{{"time":"2026-01-01T00:00:10.000000Z","event":"{SLOW_TURN}","seconds":0.5,"cpu_s":0.1}}\n'
    ten = 1767225610.0

    assert slow_turns(line, []) == [(0.5, 0.1)]
    assert slow_turns(line, [Pause(ten - 0.6, ten - 0.1)]) == []
    assert slow_turns(line, [Pause(ten - 5, ten - 4)]) == [(0.5, 0.1)]
