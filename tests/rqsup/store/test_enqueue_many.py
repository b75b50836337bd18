"""enqueue_many.lua: many jobs in one call, each as `enqueue` would accept it."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store import scripts
from rqsup.store.scripts import Call
from tests.rqsup.store.raw import Raw, envelope


def send(raw: Raw, calls: list[Call[str]], max_length: int = 0) -> list[str]:
    return raw.run(scripts.enqueue_many(raw.root, calls, max_length=max_length))


def calls(raw: Raw, *job_ids: str, queue: str = "q", level: str = "normal", delay_ms: int = 0) -> list[Call[str]]:
    """Calls for many jobs, not sent."""
    return [
        scripts.enqueue(raw.root, job_id=job_id, queue=queue, level=level, envelope=envelope(job_id), delay_ms=delay_ms)
        for job_id in job_ids
    ]


def test_many_jobs_in_one_call_get_each_its_record_its_place_and_its_verdict(raw: Raw) -> None:
    batch = [*calls(raw, "a", "b"), *calls(raw, "c", level="high"), *calls(raw, "d", delay_ms=9_000), *calls(raw, "e")]

    assert send(raw, batch) == ["ready", "ready", "ready", "scheduled", "ready"]

    assert (raw.ready(), raw.ready("q:high"), list(raw.scheduled())) == (["a", "b", "e"], ["c"], ["d"])
    assert [raw.job(name)["envelope"].encode() for name in "abcde"] == [envelope(name) for name in "abcde"]
    assert raw.stat("accepted") == 5


def test_many_jobs_in_one_call_are_as_if_each_was_sent_alone(raw: Raw) -> None:
    batch = calls(raw, *(f"j{number:04}" for number in range(2_500)))

    assert send(raw, batch) == ["ready"] * 2_500

    assert raw.ready() == [f"j{number:04}" for number in range(2_500)]
    assert send(raw, batch) == ["exists"] * 2_500
    assert raw.stat("accepted") == 2_500


def test_an_id_that_comes_twice_in_one_call_is_accepted_once(raw: Raw) -> None:
    raw.enqueue("old")

    assert send(raw, calls(raw, "a", "old", "a")) == ["ready", "exists", "exists"]
    assert raw.ready() == ["old", "a"]


@pytest.mark.parametrize(("place", "delay_ms"), [("ready", 0), ("scheduled", 9_000)])
def test_an_id_that_comes_twice_and_finds_no_place_is_refused_twice(raw: Raw, place: str, delay_ms: int) -> None:
    raw.spoil(raw.keys.scheduled if place == "scheduled" else raw.keys.ready("q:normal"))

    verdicts = send(raw, [*calls(raw, "a", delay_ms=delay_ms), *calls(raw, "a", delay_ms=delay_ms)])

    assert [verdict.partition(":")[0] for verdict in verdicts] == ["fault", "fault"]
    assert raw.job("a") == {}


def test_a_queue_that_becomes_full_within_a_call_takes_what_fits(raw: Raw) -> None:
    raw.enqueue("old", level="low")
    batch = [*calls(raw, "a", "b"), *calls(raw, "c", queue="other")]

    assert send(raw, batch, max_length=2) == ["ready", "full", "ready"]
    assert (raw.ready(), raw.ready("other:normal"), raw.job("b")) == (["a"], ["c"], {})


def test_waiting_workers_get_one_job_each_of_a_call_and_the_rest_is_ready(raw: Raw) -> None:
    raw.register("w1", "w2")
    for worker in ("w1", "w2"):
        raw.claim(worker, wait=True)

    assert send(raw, calls(raw, "a", "b", "c", "d")) == ["ready"] * 4

    assert sorted([*raw.inbox("w1"), *raw.inbox("w2")]) == ["a", "b"]
    assert raw.ready() == ["c", "d"]


def test_a_lane_of_a_wrong_type_refuses_its_own_jobs_of_a_call_alone(raw: Raw) -> None:
    raw.spoil(raw.keys.ready("q:high"))
    batch = [*calls(raw, "a"), *calls(raw, "b", level="high"), *calls(raw, "c")]

    verdicts = send(raw, batch)

    assert (verdicts[0], verdicts[2]) == ("ready", "ready")
    assert verdicts[1].startswith("fault: WRONGTYPE")
    assert (raw.ready(), raw.job("b"), raw.stat("accepted")) == (["a", "c"], {}, 2)


def test_a_bounded_queue_of_a_wrong_type_refuses_its_own_jobs_of_a_call_alone(raw: Raw) -> None:
    raw.spoil(raw.keys.ready("bad:low"))
    batch = [
        *calls(raw, "late", delay_ms=9_000),
        *calls(raw, "a"),
        *calls(raw, "x", "y", queue="bad"),
        *calls(raw, "b"),
    ]

    verdicts = send(raw, batch, max_length=10)

    assert [verdict.partition(":")[0] for verdict in verdicts] == ["scheduled", "ready", "fault", "fault", "ready"]
    assert (raw.ready(), raw.job("x"), raw.stat("accepted")) == (["a", "b"], {}, 3)


def test_a_set_of_queues_of_a_wrong_type_refuses_the_call_and_stores_nothing(raw: Raw) -> None:
    raw.spoil(raw.keys.queues)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        send(raw, calls(raw, "a", "b"))

    assert (raw.job("a"), raw.job("b"), raw.stat("accepted")) == ({}, {}, 0)


def test_a_schedule_of_a_wrong_type_refuses_the_delayed_jobs_alone(raw: Raw) -> None:
    raw.spoil(raw.keys.scheduled)

    late, soon = send(raw, [*calls(raw, "a", delay_ms=9_000), *calls(raw, "b")])

    assert late.startswith("fault: WRONGTYPE")
    assert (soon, raw.ready(), raw.job("a")) == ("ready", ["b"], {})


def test_a_second_send_of_a_call_changes_nothing(raw: Raw) -> None:
    batch = [*calls(raw, "a", "b"), *calls(raw, "c", delay_ms=9_000)]
    send(raw, batch)
    before = raw.picture(without=())

    assert send(raw, batch) == ["exists"] * 3
    assert raw.picture(without=()) == before


def test_a_job_without_neighbours_is_the_same_by_either_script(raw: Raw) -> None:
    raw.enqueue("a")
    send(raw, calls(raw, "b"))

    one, other = raw.job("a"), raw.job("b")
    assert abs(int(one.pop("enqueued_at")) - int(other.pop("enqueued_at"))) < 5_000
    assert (one.pop("envelope"), other.pop("envelope")) == (envelope("a").decode(), envelope("b").decode())
    assert one == other
