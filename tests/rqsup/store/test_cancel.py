"""cancel.lua: a job that has not started never will."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store import scripts
from tests.rqsup.store.raw import Raw


def cancel(raw: Raw, job_id: str = "a") -> str:
    return raw.run(scripts.cancel(raw.root, job_id=job_id, ttl_ms=60_000))


@pytest.mark.parametrize("delay_ms", [0, 60_000], ids=["ready", "scheduled"])
def test_a_job_that_has_not_started_leaves_its_place_and_is_kept_for_a_time(raw: Raw, delay_ms: int) -> None:
    raw.enqueue("a", delay_ms=delay_ms)

    assert cancel(raw) == "cancelled"

    assert (raw.ready(), raw.scheduled()) == ([], {})
    record = raw.job("a")
    assert record["state"] == "cancelled"
    assert abs(int(record["finished_at"]) - raw.now_ms()) < 5_000
    assert 50_000 < raw.redis.pttl(raw.keys.job("a")) <= 60_000
    assert raw.stat("cancelled") == 1


def test_a_second_cancel_is_told_and_changes_nothing(raw: Raw) -> None:
    raw.enqueue("a")
    cancel(raw)
    before = raw.picture(without=())

    assert cancel(raw) == "cancelled"
    assert raw.picture(without=()) == before


def test_a_running_job_goes_on(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    before = raw.picture(without=())

    assert cancel(raw) == "active"
    assert raw.picture(without=()) == before


def test_a_job_that_was_handed_to_a_worker_goes_on(raw: Raw) -> None:
    raw.claim(wait=True)
    raw.enqueue("a")
    before = raw.picture(without=())

    assert cancel(raw) == "active"
    assert raw.picture(without=()) == before


def test_an_ended_job_stays_as_it_is(raw: Raw) -> None:
    raw.enqueue("a")
    raw.settle(raw.claim().jobs[0], "bury", b"{}", 0)

    assert cancel(raw) == "dead"
    assert raw.dead() == ["a"]


def test_an_unknown_job_is_missing(raw: Raw) -> None:
    assert cancel(raw) == "missing"


@pytest.mark.parametrize("key", ["ready", "scheduled", "job"])
def test_a_wrong_type_fails_loudly_and_changes_nothing(raw: Raw, key: str) -> None:
    raw.enqueue("a", delay_ms=60_000 if key == "scheduled" else 0)
    raw.spoil({"ready": raw.keys.ready("q:normal"), "scheduled": raw.keys.scheduled, "job": raw.keys.job("a")}[key])
    before = raw.picture()

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        cancel(raw)

    assert raw.picture() == before


def test_counters_of_a_wrong_type_do_not_hinder_a_cancel(raw: Raw) -> None:
    raw.enqueue("a")
    raw.spoil(raw.keys.stats)

    assert cancel(raw) == "cancelled"
