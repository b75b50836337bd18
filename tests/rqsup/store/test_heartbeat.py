"""heartbeat.lua: keeps workers in the registry."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store import scripts
from tests.rqsup.store.raw import Raw


def beat(raw: Raw, *workers: str) -> list[str]:
    return raw.run(scripts.heartbeat(raw.root, ttl_ms=60_000, details=dict.fromkeys(workers, b'{"pid": 1}')))


def test_new_workers_are_added_and_told(raw: Raw) -> None:
    assert beat(raw, "x", "y") == ["x", "y"]

    assert raw.redis.hmget(raw.keys.workers, "x", "y") == [b"1", b"1"]
    assert raw.redis.get(raw.keys.worker("x")) == b'{"pid": 1}'
    assert 50_000 < raw.redis.pttl(raw.keys.worker("x")) <= 60_000


def test_a_second_beat_raises_the_counter_and_renews_the_details(raw: Raw) -> None:
    beat(raw, "x")
    raw.redis.pexpire(raw.keys.worker("x"), 1_000)

    assert beat(raw, "x") == []

    assert raw.redis.hget(raw.keys.workers, "x") == b"2"
    assert raw.redis.pttl(raw.keys.worker("x")) > 50_000


def test_a_worker_that_was_reaped_is_told_as_added(raw: Raw) -> None:
    beat(raw, "x", "y")
    raw.recover("x")

    assert beat(raw, "x", "y") == ["x"]


def test_a_beat_for_nobody_changes_nothing(raw: Raw) -> None:
    before = raw.picture()

    assert beat(raw) == []
    assert raw.picture() == before


def test_a_registry_of_a_wrong_type_fails_loudly(raw: Raw) -> None:
    raw.spoil(raw.keys.workers)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        beat(raw, "x")

    assert raw.redis.exists(raw.keys.worker("x")) == 0


def test_details_of_a_wrong_type_are_replaced(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.worker("x"), "list")

    assert beat(raw, "x") == ["x"]
    assert raw.redis.get(raw.keys.worker("x")) == b'{"pid": 1}'
