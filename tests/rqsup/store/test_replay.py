"""replay.lua: a dead letter runs again, from its first attempt."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store import scripts
from tests.rqsup.store.raw import Raw


def replay(raw: Raw, job_id: str = "a") -> str:
    return raw.run(scripts.replay(raw.root, job_id=job_id))


def bury(raw: Raw, job_id: str = "a") -> int:
    raw.enqueue(job_id)
    job = raw.claim().jobs[0]
    raw.settle(job, "bury", b'{"type": "E"}', 0)
    return job.token


def test_a_dead_letter_goes_back_to_its_lane_with_no_attempts_behind_it(raw: Raw) -> None:
    token = bury(raw)
    raw.redis.hset(raw.keys.job("a"), mapping={"crashes": 3, "reason": "crash limit"})

    assert replay(raw) == "ready"

    assert raw.ready() == ["a"]
    assert raw.dead() == []
    record = raw.job("a")
    assert (record["state"], record["token"], record["error"]) == ("ready", str(token + 1), '{"type": "E"}')
    assert not {"errors", "crashes", "reason", "dead_at"} & set(record)
    assert raw.claim().jobs[0].attempt == 1
    assert raw.stat("replayed") == 1


def test_a_second_replay_is_told_and_changes_nothing(raw: Raw) -> None:
    bury(raw)
    replay(raw)
    before = raw.picture(without=())

    assert replay(raw) == "missing"
    assert raw.picture(without=()) == before


def test_the_attempt_that_buried_it_cannot_settle_the_replayed_job(raw: Raw) -> None:
    raw.enqueue("a")
    old = raw.claim().jobs[0]
    raw.settle(old, "bury", b"{}", 0)
    replay(raw)
    before = raw.picture()

    assert raw.settle(old, "bury", b"{}", 0) == "stale"
    assert raw.picture() == before


@pytest.mark.parametrize("kind", ["missing", "wrong type"])
def test_a_letter_without_a_readable_record_stays(raw: Raw, kind: str) -> None:
    raw.redis.zadd(raw.keys.dead, {b"\xff": 1})
    if kind == "wrong type":
        raw.redis.set(raw.keys.root.encode() + b"job:\xff", "not yours")
    before = raw.picture(without=())

    assert replay(raw, "\udcff") == "unreadable"
    assert raw.picture(without=()) == before


@pytest.mark.parametrize("field", ["queue", "level"])
def test_a_letter_that_lost_its_lane_is_unreadable_and_stays(raw: Raw, field: str) -> None:
    raw.enqueue("a")
    raw.register("w")
    raw.settle(raw.claim().jobs[0], "bury", b"{}", 0)
    raw.redis.hdel(raw.keys.job("a"), field)

    assert replay(raw) == "unreadable"
    assert raw.dead() == ["a"]


def test_a_stray_copy_in_the_dead_letters_is_dropped_and_the_job_runs_once(raw: Raw) -> None:
    raw.enqueue("a")
    raw.redis.zadd(raw.keys.dead, {"a": 1})

    assert replay(raw) == "missing"

    assert raw.ready() == ["a"]
    assert raw.dead() == []


def test_a_lane_of_a_wrong_type_fails_loudly_and_keeps_the_letter(raw: Raw) -> None:
    bury(raw)
    raw.spoil(raw.keys.ready("q:normal"))
    before = raw.picture()

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        replay(raw)

    assert raw.picture() == before


def test_dead_letters_of_a_wrong_type_fail_loudly(raw: Raw) -> None:
    raw.spoil(raw.keys.dead)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        replay(raw)


def test_counters_of_a_wrong_type_do_not_hinder_a_replay(raw: Raw) -> None:
    bury(raw)
    raw.spoil(raw.keys.stats)

    assert replay(raw) == "ready"
    assert raw.dead() == []
