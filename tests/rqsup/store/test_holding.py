"""holding.lua: which workers have jobs in their hands."""

from __future__ import annotations

from rqsup.store import scripts
from tests.rqsup.store.raw import Raw


def holding(raw: Raw, *workers: str) -> list[str]:
    return raw.run(scripts.holding(raw.root, workers=workers))


def test_a_worker_with_a_job_in_either_list_is_named_and_nothing_changes(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.inbox("a"), "1")
    raw.redis.lpush(raw.keys.processing("b"), "2", "3")
    before = {key: raw.redis.lrange(key, 0, -1) for key in (raw.keys.inbox("a"), raw.keys.processing("b"))}

    assert holding(raw, "a", "b", "c") == ["a", "b"]
    assert holding(raw, "a", "b", "c") == ["a", "b"]
    assert {key: raw.redis.lrange(key, 0, -1) for key in before} == before


def test_a_list_of_a_wrong_type_holds_nothing(raw: Raw) -> None:
    raw.redis.set(raw.keys.inbox("a"), "x")
    raw.redis.lpush(raw.keys.processing("a"), "1")
    raw.redis.set(raw.keys.inbox("b"), "x")

    assert holding(raw, "a", "b") == ["a"]
    assert holding(raw) == []
