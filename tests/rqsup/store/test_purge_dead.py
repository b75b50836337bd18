"""purge_dead.lua: dead letters are deleted, and nothing else."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store import scripts
from tests.rqsup.store.raw import Raw


def purge(raw: Raw, limit: int = 500) -> int:
    return raw.run(scripts.purge_dead(raw.root, limit=limit))


def bury(raw: Raw, job_id: str, dead_at: int) -> None:
    raw.enqueue(job_id)
    raw.settle(raw.claim().jobs[0], "bury", b"{}", 0)
    raw.redis.zadd(raw.keys.dead, {job_id: dead_at})


def test_the_oldest_letters_go_first_with_their_records(raw: Raw) -> None:
    for number, job_id in enumerate(("a", "b", "c")):
        bury(raw, job_id, dead_at=number)

    assert purge(raw, limit=2) == 2

    assert raw.dead() == ["c"]
    assert (raw.job("a"), raw.job("b")) == ({}, {})
    assert raw.job("c")["state"] == "dead"
    assert raw.stat("purged") == 2


def test_a_second_purge_finds_nothing_and_changes_nothing(raw: Raw) -> None:
    bury(raw, "a", dead_at=1)
    purge(raw)
    before = raw.picture(without=())

    assert purge(raw) == 0
    assert raw.picture(without=()) == before


def test_the_record_of_a_living_job_survives_a_stray_copy_of_its_id(raw: Raw) -> None:
    raw.enqueue("a")
    raw.redis.zadd(raw.keys.dead, {"a": 1})

    assert purge(raw) == 1

    assert raw.dead() == []
    assert raw.ready() == ["a"]
    assert raw.job("a")["state"] == "ready"


def test_a_letter_with_a_record_of_a_wrong_type_goes_too(raw: Raw) -> None:
    raw.redis.zadd(raw.keys.dead, {"odd": 1})
    raw.spoil(raw.keys.job("odd"))

    assert purge(raw) == 1
    assert raw.redis.exists(raw.keys.job("odd")) == 0


def test_dead_letters_of_a_wrong_type_fail_loudly(raw: Raw) -> None:
    raw.spoil(raw.keys.dead)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        purge(raw)


def test_counters_of_a_wrong_type_do_not_hinder_a_purge(raw: Raw) -> None:
    bury(raw, "a", dead_at=1)
    raw.spoil(raw.keys.stats)

    assert purge(raw) == 1
