"""gauge.lua: how long jobs wait."""

from __future__ import annotations

import pytest

from rqsup.store import scripts
from rqsup.store.keys import lanes
from rqsup.store.scripts import Backlog
from tests.rqsup.store.raw import Raw


def gauge(raw: Raw, *queues: str) -> Backlog:
    return raw.run(scripts.gauge(raw.root, lanes=lanes(list(queues or ("q",)))))


def age(raw: Raw, job_id: str, **fields_ms_ago: int) -> None:
    """Move times of a job's record into the past."""
    now = raw.now_ms()
    raw.redis.hset(raw.keys.job(job_id), mapping={name: now - ago for name, ago in fields_ms_ago.items()})


def test_without_jobs_nothing_waits(raw: Raw) -> None:
    assert gauge(raw) == Backlog(0, 0)
    assert gauge(raw, "q", "r", "s") == Backlog(0, 0)


def test_the_oldest_of_all_lanes_counts_and_nothing_changes(raw: Raw) -> None:
    for job_id, queue, level, ago in (("a", "q", "low", 9000), ("b", "q", "high", 3000), ("c", "r", "low", 5000)):
        raw.enqueue(job_id, queue, level)
        age(raw, job_id, enqueued_at=ago, due_at=ago)
    before = raw.picture(without=())

    found = gauge(raw, "q", "r")

    assert found.waiting == 3
    assert 9000 <= found.wait_ms < 10_000
    assert 5000 <= gauge(raw, "r").wait_ms < 6000
    assert raw.picture(without=()) == before


def test_in_a_lane_the_next_job_counts(raw: Raw) -> None:
    for job_id, ago in (("first", 4000), ("second", 2000)):
        raw.enqueue(job_id)
        age(raw, job_id, enqueued_at=ago, due_at=ago)

    assert 4000 <= gauge(raw).wait_ms < 5000


def test_a_job_that_has_just_come_waits_too(raw: Raw) -> None:
    raw.enqueue("a")

    assert gauge(raw).wait_ms >= 1


@pytest.mark.parametrize("field", ["due_at", "returned_at", "replayed_at"])
def test_a_job_waits_since_it_came_back(raw: Raw, field: str) -> None:
    raw.enqueue("a")
    age(raw, "a", enqueued_at=3_600_000, due_at=3_600_000)
    age(raw, "a", **{field: 2000})

    assert 2000 <= gauge(raw).wait_ms < 3000


def test_jobs_that_are_held_run_or_scheduled_do_not_wait(raw: Raw) -> None:
    raw.enqueue("running")
    raw.claim()
    raw.enqueue("later", delay_ms=60_000)

    assert gauge(raw) == Backlog(0, 0)


def test_foreign_things_are_counted_or_passed_over(raw: Raw) -> None:
    raw.spoil(raw.keys.ready("q:critical"))
    raw.redis.lpush(raw.keys.ready("q:high"), "no-record")
    raw.redis.lpush(raw.keys.ready("q:low"), "wrong-record")
    raw.spoil(raw.keys.job("wrong-record"))

    assert gauge(raw) == Backlog(2, 0)
