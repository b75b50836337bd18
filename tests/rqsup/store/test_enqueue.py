"""enqueue.lua: one accepted job has one record and one place."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store import scripts
from tests.rqsup.store.raw import Raw, envelope


def test_a_job_gets_a_record_and_its_id_the_end_of_its_lane(raw: Raw) -> None:
    assert raw.enqueue("a", queue="mail", level="high") == "ready"

    assert raw.ready("mail:high") == ["a"]
    record = raw.job("a")
    assert record["state"] == "ready"
    assert record["envelope"].encode() == envelope("a")
    assert (record["queue"], record["level"]) == ("mail", "high")
    assert abs(int(record["enqueued_at"]) - raw.now_ms()) < 5_000
    assert raw.redis.smembers(raw.keys.queues) == {b"mail"}
    assert raw.stat("accepted") == 1
    assert raw.redis.ttl(raw.keys.job("a")) == -1


def test_a_lane_is_first_in_first_out(raw: Raw) -> None:
    for job_id in ("a", "b", "c"):
        raw.enqueue(job_id)

    assert raw.ready() == ["a", "b", "c"]


def test_a_second_enqueue_of_an_accepted_id_changes_nothing(raw: Raw) -> None:
    raw.enqueue("a")
    before = raw.picture(without=())

    assert raw.enqueue("a", queue="other", level="critical") == "exists"
    assert raw.picture(without=()) == before


def test_a_finished_job_is_not_accepted_again_while_its_record_is_kept(raw: Raw) -> None:
    raw.enqueue("a")
    raw.settle(raw.claim().jobs[0])

    assert raw.enqueue("a") == "exists"
    assert raw.ready() == []


def test_a_delayed_job_is_scheduled_by_the_servers_clock(raw: Raw) -> None:
    assert raw.enqueue("a", delay_ms=5_000) == "scheduled"

    assert raw.ready() == []
    assert 4_000 < raw.scheduled()["a"] - raw.now_ms() <= 5_000
    assert raw.job("a")["state"] == "scheduled"
    assert int(raw.job("a")["due_at"]) == raw.scheduled()["a"]


def test_a_job_with_a_due_time_in_the_future_is_scheduled_for_it(raw: Raw) -> None:
    due_ms = raw.now_ms() + 60_000

    assert raw.enqueue("a", due_ms=due_ms) == "scheduled"
    assert raw.scheduled() == {"a": due_ms}


def test_a_job_that_is_overdue_is_ready_at_once(raw: Raw) -> None:
    assert raw.enqueue("a", due_ms=raw.now_ms() - 1) == "ready"
    assert raw.ready() == ["a"]


def test_only_a_job_that_becomes_the_next_one_due_is_announced(raw: Raw) -> None:
    with raw.redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(raw.keys.due)
        channel.get_message(timeout=1)

        raw.enqueue("late", delay_ms=60_000)
        raw.enqueue("later", delay_ms=90_000)
        raw.enqueue("soon", delay_ms=30_000)

        heard = [channel.get_message(timeout=1), channel.get_message(timeout=1), channel.get_message(timeout=0.05)]
    due = raw.scheduled()
    assert [int(message["data"]) for message in heard if message] == [due["late"], due["soon"]]


def test_a_full_queue_refuses_and_stores_nothing(raw: Raw) -> None:
    raw.enqueue("a", level="low", max_length=2)
    raw.enqueue("b", level="critical", max_length=2)
    before = raw.picture(without=())

    assert raw.enqueue("c", max_length=2) == "full"
    assert raw.picture(without=()) == before


def test_a_waiting_worker_gets_the_job_into_its_inbox(raw: Raw) -> None:
    raw.claim("w", wait=True)

    assert raw.enqueue("a") == "ready"

    assert raw.inbox("w") == ["a"]
    assert raw.ready() == []
    assert raw.redis.scard(raw.keys.waiting) == 0


def test_each_job_wakes_exactly_one_waiting_worker(raw: Raw) -> None:
    workers = ["w1", "w2", "w3"]
    raw.register(*workers)
    for worker in workers:
        raw.claim(worker, wait=True)

    for job_id in ("a", "b", "c", "d"):
        raw.enqueue(job_id)

    assert sorted(len(raw.inbox(worker)) for worker in workers) == [1, 1, 1]
    assert raw.ready() == ["d"]


def test_a_hint_of_a_worker_that_waits_no_longer_is_passed_over(raw: Raw) -> None:
    raw.register("busy", "idle")
    raw.claim("busy", queues=("q", "p"), wait=True)
    raw.enqueue("p1", queue="p")  # wakes it; its hint in `idle:q` stays
    raw.claim("busy", resume=True)

    raw.enqueue("a")
    assert raw.ready() == ["a"]
    assert raw.inbox("busy") == []

    raw.claim("idle", count=1)
    raw.claim("idle", resume=True)
    raw.redis.sadd(raw.keys.idle("q"), "busy", "gone")
    raw.redis.sadd(raw.keys.waiting, "idle")
    raw.redis.sadd(raw.keys.idle("q"), "idle")
    raw.enqueue("b")
    assert raw.inbox("idle") == ["b"]


def test_a_lane_of_a_wrong_type_refuses_the_job_and_stores_nothing(raw: Raw) -> None:
    raw.spoil(raw.keys.ready("q:normal"))

    assert raw.enqueue("a").startswith("fault: WRONGTYPE")

    assert raw.job("a") == {}
    assert raw.stat("accepted") == 0
    raw.redis.delete(raw.keys.ready("q:normal"))
    assert raw.enqueue("a") == "ready"


def test_a_set_of_queues_of_a_wrong_type_refuses_the_call_and_stores_nothing(raw: Raw) -> None:
    raw.spoil(raw.keys.queues)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        raw.enqueue("a")

    assert raw.job("a") == {}
    assert raw.stat("accepted") == 0


def test_a_schedule_of_a_wrong_type_refuses_the_job_and_stores_nothing(raw: Raw) -> None:
    raw.spoil(raw.keys.scheduled)

    assert raw.enqueue("a", delay_ms=1_000).startswith("fault: WRONGTYPE")

    assert raw.job("a") == {}


@pytest.mark.parametrize("key", ["stats", "waiting", "idle", "inbox"])
def test_a_wrong_type_where_no_job_is_kept_does_not_hinder_the_job(raw: Raw, key: str) -> None:
    raw.claim("w", wait=True)
    name = {
        "stats": raw.keys.stats, "waiting": raw.keys.waiting, "idle": raw.keys.idle("q"), "inbox": raw.keys.inbox("w"),
    }[key]  # fmt: skip
    raw.spoil(name)

    assert raw.enqueue("a") == "ready"

    assert raw.job("a")["state"] == "ready"
    assert raw.ready() + ([] if key == "inbox" else raw.inbox()) == ["a"]


def test_a_record_of_a_wrong_type_counts_as_accepted_before(raw: Raw) -> None:
    raw.spoil(raw.keys.job("a"))

    assert raw.enqueue("a") == "exists"
    assert raw.ready() == []


def test_a_call_encodes_each_argument_as_the_header_says() -> None:
    call = scripts.enqueue("r:", job_id="a", queue="q", level="low", envelope=b"{}", delay_ms=7)

    assert call.arguments[:7] == ("a", "q", "low", b"{}", 0, 7, 0)
