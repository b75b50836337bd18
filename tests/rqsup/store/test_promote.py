"""promote.lua: due jobs move to their lanes."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup import Client
from rqsup.store import scripts
from rqsup.store.scripts import Promotion
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw


def promote(raw: Raw, limit: int = 500) -> Promotion:
    return raw.run(scripts.promote(raw.root, limit=limit))


def make_due(raw: Raw, *job_ids: str) -> None:
    """Let the jobs become due, in this order."""
    raw.redis.zadd(raw.keys.scheduled, {job_id: number + 1 for number, job_id in enumerate(job_ids)})


def test_due_jobs_move_to_their_lanes_in_the_order_of_their_times(raw: Raw) -> None:
    for job_id, level in (("a", "high"), ("b", "low"), ("c", "low"), ("future", "low")):
        raw.enqueue(job_id, level=level, delay_ms=60_000)
    make_due(raw, "c", "b", "a")

    promotion = promote(raw)

    assert promotion.moved == 3
    assert promotion.wait_ms is not None
    assert 50_000 < promotion.wait_ms <= 60_000
    assert (raw.ready("q:high"), raw.ready("q:low")) == (["a"], ["c", "b"])
    assert raw.job("a")["state"] == "ready"
    assert list(raw.scheduled()) == ["future"]


def test_a_second_promotion_changes_nothing(raw: Raw) -> None:
    raw.enqueue("a", delay_ms=60_000)
    make_due(raw, "a")
    promote(raw)
    before = raw.picture(without=())

    assert promote(raw) == Promotion(0, None)
    assert raw.picture(without=()) == before


def test_nothing_scheduled_is_told(raw: Raw) -> None:
    assert promote(raw) == Promotion(0, None)


def test_a_limit_leaves_the_rest_due_now(raw: Raw) -> None:
    for job_id in ("a", "b", "c"):
        raw.enqueue(job_id, delay_ms=60_000)
    make_due(raw, "a", "b", "c")

    assert promote(raw, limit=2) == Promotion(2, 0)
    assert raw.ready() == ["a", "b"]
    assert promote(raw, limit=2) == Promotion(1, None)


def test_a_due_job_goes_straight_to_a_waiting_worker(raw: Raw) -> None:
    raw.enqueue("a", delay_ms=60_000)
    make_due(raw, "a")
    raw.claim(wait=True)

    promote(raw)

    assert raw.inbox() == ["a"]


def test_a_stray_copy_is_dropped(raw: Raw) -> None:
    raw.enqueue("a")
    make_due(raw, "a")

    assert promote(raw) == Promotion(0, None)
    assert raw.ready() == ["a"]
    assert raw.stat("strays") == 1


@pytest.mark.parametrize("kind", ["missing", "wrong type"])
def test_an_id_without_a_readable_record_is_buried(raw: Raw, kind: str) -> None:
    make_due(raw, "odd")
    if kind == "wrong type":
        raw.spoil(raw.keys.job("odd"))

    assert promote(raw) == Promotion(0, None)
    assert raw.dead() == ["odd"]
    assert raw.stat("dead") == 1


@pytest.mark.parametrize("field", ["queue", "level"])
def test_a_record_that_lost_its_lane_is_buried_and_lets_others_pass(raw: Raw, field: str) -> None:
    for name in ("odd", "good"):
        raw.enqueue(name, delay_ms=60_000)
    make_due(raw, "odd", "good")
    raw.redis.hdel(raw.keys.job("odd"), field)

    assert promote(raw) == Promotion(1, None)

    assert (raw.dead(), raw.ready()) == (["odd"], ["good"])


def test_a_lane_of_a_wrong_type_delays_its_jobs_and_lets_others_pass(raw: Raw) -> None:
    for number in range(5):
        raw.enqueue(f"stuck{number}", delay_ms=60_000)
    raw.enqueue("free", queue="p", delay_ms=60_000)
    make_due(raw, *(f"stuck{number}" for number in range(5)), "free")
    raw.spoil(raw.keys.ready("q:normal"))

    first, second = promote(raw, limit=5), promote(raw, limit=5)

    assert (first.moved, second.moved) == (0, 1)
    assert raw.ready("p:normal") == ["free"]
    assert raw.job("stuck0")["state"] == "scheduled"
    # Not at once again: the master would spin.
    assert second.wait_ms is not None
    assert second.wait_ms > 1_000


@pytest.mark.parametrize("key", ["stats", "waiting", "idle"])
def test_a_wrong_type_where_no_job_is_kept_does_not_hinder_a_promotion(raw: Raw, key: str) -> None:
    raw.claim(wait=True)
    raw.enqueue("a", delay_ms=60_000)
    make_due(raw, "a", "junk")
    raw.spoil({"stats": raw.keys.stats, "waiting": raw.keys.waiting, "idle": raw.keys.idle("q")}[key])

    assert promote(raw).moved == 1


def test_a_schedule_of_a_wrong_type_fails_loudly(raw: Raw) -> None:
    raw.spoil(raw.keys.scheduled)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        promote(raw)


def test_nothing_scheduled_is_told_by_one_command(private_redis: LocalServer, namespace: str) -> None:
    with Client(private_redis.url, namespace=namespace) as client:
        raw = Raw(client)
        promote(raw)
        before = raw.commands()

        answer = promote(raw)

        assert raw.commands() - before - 1 == 1 + 1, "the script and what it calls"
        assert answer == Promotion(0, None)
