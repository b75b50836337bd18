"""settle.lua: ends attempts, each only with the token of its claim."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store.scripts import Claimed, Settlement
from tests.rqsup.store.raw import Raw


def started(raw: Raw, job_id: str = "a", worker: str = "w") -> Claimed:
    raw.enqueue(job_id)
    return raw.claim(worker).jobs[0]


def test_success_keeps_the_result_for_its_time_and_empties_the_place(raw: Raw) -> None:
    job = started(raw)

    assert raw.settle(job, "succeed", b'{"n": 1}', 60_000) == "ok"

    record = raw.job("a")
    assert (record["state"], record["result"]) == ("succeeded", '{"n": 1}')
    assert abs(int(record["finished_at"]) - raw.now_ms()) < 5_000
    assert 50_000 < raw.redis.pttl(raw.keys.job("a")) <= 60_000
    assert raw.processing() == []
    assert raw.stat("succeeded") == 1


def test_success_with_time_zero_keeps_nothing(raw: Raw) -> None:
    job = started(raw)

    assert raw.settle(job, "succeed", b"1", 0) == "ok"

    assert raw.job("a") == {}
    assert raw.processing() == []


def test_a_retry_is_scheduled_with_its_error_and_counted(raw: Raw) -> None:
    job = started(raw)

    assert raw.settle(job, "retry", b'{"type": "E"}', 2_000) == "ok"

    record = raw.job("a")
    assert (record["state"], record["errors"], record["error"]) == ("scheduled", "1", '{"type": "E"}')
    assert 1_000 < raw.scheduled()["a"] - raw.now_ms() <= 2_000
    assert int(record["due_at"]) == raw.scheduled()["a"]
    assert raw.processing() == []
    assert raw.stat("retried") == 1


def test_a_retry_that_is_next_due_is_announced(raw: Raw) -> None:
    job = started(raw)
    with raw.redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(raw.keys.due)
        channel.get_message(timeout=1)

        raw.settle(job, "retry", b"{}", 2_000)

        message = channel.get_message(timeout=1)
    assert message
    assert int(message["data"]) == raw.scheduled()["a"]


def test_a_buried_job_is_a_dead_letter_with_its_error(raw: Raw) -> None:
    job = started(raw)

    assert raw.settle(job, "bury", b'{"type": "E"}', 0) == "ok"

    record = raw.job("a")
    assert (record["state"], record["errors"], record["error"]) == ("dead", "1", '{"type": "E"}')
    assert raw.dead() == ["a"]
    assert raw.redis.pttl(raw.keys.job("a")) == -1
    assert raw.processing() == []
    assert raw.stat("dead") == 1


@pytest.mark.parametrize("field", ["queue", "level"])
def test_a_crash_of_a_record_that_lost_its_lane_is_buried_and_the_rest_of_the_batch_settled(
    raw: Raw, field: str
) -> None:
    raw.register("w")
    for name in ("odd", "good"):
        raw.enqueue(name)
    odd, good = raw.claim(count=2).jobs
    raw.redis.hdel(raw.keys.job("odd"), field)

    ends = [Settlement(odd.id, odd.token, "crash", b"{}", 3), Settlement(good.id, good.token, "succeed", b"1", 1000)]
    assert raw.settle_all(ends).verdicts == ["ok", "ok"]

    assert (raw.dead(), raw.processing(), raw.job("good")["state"]) == (["odd"], [], "succeeded")


def test_a_released_job_is_ready_at_the_consuming_end_as_if_nobody_had_claimed_it(raw: Raw) -> None:
    raw.register("w", "v")
    for name in ("a", "b", "c"):
        raw.enqueue(name)
    a, b = raw.claim(count=2).jobs

    assert raw.settle_all([Settlement(job.id, job.token, "release", b"", 0) for job in (b, a)]).verdicts == ["ok", "ok"]

    assert (raw.ready(), raw.processing()) == (["a", "b", "c"], [])
    assert raw.settle(a, "release") == "stale"
    again = raw.claim("v").jobs[0]
    assert (again.id, again.attempt, again.token) == ("a", 1, a.token + 1)
    assert "returns" not in raw.job("a")


def test_a_released_job_goes_to_a_waiting_worker(raw: Raw) -> None:
    raw.register("w", "v")
    raw.enqueue("a")
    job = raw.claim().jobs[0]
    raw.claim("v", wait=True)

    raw.settle(job, "release")

    assert (raw.inbox("v"), raw.ready()) == (["a"], [])


def test_a_release_to_a_lane_of_a_wrong_type_changes_nothing(raw: Raw) -> None:
    job = started(raw)
    raw.spoil(raw.keys.ready("q:normal"))

    assert raw.settle(job, "release").startswith("fault: WRONGTYPE")
    assert (raw.processing(), raw.job(job.id)["state"]) == ([job.id], "active")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3), (0, 1), (2, 3), (1,)])
def test_jobs_settled_together_leave_the_list_whatever_their_order(raw: Raw, order: tuple[int, ...]) -> None:
    raw.register("w")
    for number in range(4):
        raw.enqueue(f"j{number}")
    jobs = raw.claim(count=4).jobs

    raw.settle_all([Settlement(jobs[at].id, jobs[at].token, "succeed", b"1", 60_000) for at in order])

    assert raw.processing() == [f"j{number}" for number in range(4) if number not in order]


def test_a_crash_is_charged_and_the_job_ready_at_the_consuming_end(raw: Raw) -> None:
    job = started(raw)
    raw.enqueue("b")

    assert raw.settle(job, "crash", b'{"message": "boom"}', 3) == "ok"

    record = raw.job("a")
    assert (record["state"], record["crashes"], record["crash"]) == ("ready", "1", '{"message": "boom"}')
    assert raw.ready() == ["a", "b"]
    assert raw.processing() == []
    assert raw.stat("crashed") == 1
    again = raw.claim().jobs[0]
    assert (again.id, again.crashes, again.attempt, again.token) == ("a", 1, 2, job.token + 1)


def test_a_crash_hands_the_job_to_a_worker_that_waits(raw: Raw) -> None:
    raw.register("other")
    job = started(raw)
    raw.claim("other", wait=True)

    assert raw.settle(job, "crash", b"{}", 3) == "ok"

    assert raw.redis.lrange(raw.keys.inbox("other"), 0, -1) == [b"a"]
    assert raw.ready() == []


def test_a_crash_at_the_limit_is_a_dead_letter_with_its_cause(raw: Raw) -> None:
    job = started(raw)

    assert raw.settle(job, "crash", b'{"message": "boom"}', 1) == "ok"

    record = raw.job("a")
    assert (record["state"], record["crashes"], record["crash"]) == ("dead", "1", '{"message": "boom"}')
    assert record["reason"] == "crash limit: its process died 1 times while running it"
    assert raw.dead() == ["a"]
    assert raw.processing() == []
    assert (raw.stat("crashed"), raw.stat("dead")) == (1, 1)


@pytest.mark.parametrize("limit", [1, 3])
def test_the_same_crash_twice_is_told_and_counted_once(raw: Raw, limit: int) -> None:
    job = started(raw)
    raw.settle(job, "crash", b'{"at_ms": 1}', limit)
    before = raw.picture(without=())

    assert raw.settle(job, "crash", b'{"at_ms": 1}', limit) == "repeated"
    assert raw.picture(without=()) == before


def test_a_crash_after_another_end_is_stale(raw: Raw) -> None:
    job = started(raw)
    raw.settle(job, "retry", b"{}", 0)
    before = raw.picture()

    assert raw.settle(job, "crash", b"{}", 3) == "stale"
    assert raw.picture() == before


def test_a_crash_of_an_attempt_that_was_taken_away_changes_nothing(raw: Raw) -> None:
    old = started(raw)
    raw.settle(old, "crash", b'{"at_ms": 1}', 3)
    raw.claim()
    before = raw.picture()

    assert raw.settle(old, "crash", b'{"at_ms": 1}', 3) == "stale"
    assert raw.picture() == before


@pytest.mark.parametrize(("limit", "place"), [(1, "dead"), (3, "ready")])
def test_a_crash_whose_new_place_has_a_wrong_type_leaves_the_job_where_it_is(raw: Raw, limit: int, place: str) -> None:
    job = started(raw)
    raw.spoil({"dead": raw.keys.dead, "ready": raw.keys.ready("q:normal")}[place])
    before = raw.picture()

    assert raw.settle(job, "crash", b"{}", limit).startswith("fault: WRONGTYPE")

    assert raw.picture() == before
    assert raw.processing() == ["a"]


@pytest.mark.parametrize("outcome", ["succeed", "retry", "bury", "defer"])
def test_the_same_settle_twice_is_told_and_changes_nothing(raw: Raw, outcome: str) -> None:
    job = started(raw)
    raw.settle(job, outcome, b"{}", 60_000)
    before = raw.picture(without=())

    assert raw.settle(job, outcome, b"{}", 60_000) == "repeated"
    assert raw.picture(without=()) == before


def test_a_second_settle_with_another_outcome_is_stale(raw: Raw) -> None:
    job = started(raw)
    raw.settle(job, "succeed")
    before = raw.picture()

    assert raw.settle(job, "bury", b"{}", 0) == "stale"
    assert raw.picture() == before


@pytest.mark.parametrize("outcome", ["succeed", "retry", "bury", "defer", "crash"])
def test_a_settle_with_an_old_token_changes_nothing(raw: Raw, outcome: str) -> None:
    old = started(raw)
    new = raw.claim(resume=True).jobs[0]
    before = raw.picture()

    assert raw.settle(old, outcome, b"{}", 1_000) == "stale"

    assert raw.picture() == before
    assert raw.stat("stale") == 1
    assert raw.settle(new) == "ok"


def test_a_settle_after_the_lease_was_lost_changes_nothing(raw: Raw) -> None:
    raw.register("other")
    old = started(raw)
    raw.recover("w")
    new = raw.claim("other").jobs[0]
    before = raw.picture()

    assert raw.settle(old) == "stale"
    assert raw.picture() == before
    assert raw.settle(new, worker="other") == "ok"


def test_a_settle_by_another_worker_changes_nothing(raw: Raw) -> None:
    job = started(raw)
    before = raw.picture()

    assert raw.settle(job, worker="thief") == "stale"
    assert raw.picture() == before


def test_a_settle_of_an_unknown_job_is_stale(raw: Raw) -> None:
    before = raw.picture()

    assert raw.settle(Claimed("none", 1, 0, 0, b"")) == "stale"
    assert raw.picture() == before


def test_many_attempts_are_settled_in_order_each_with_its_own_verdict(raw: Raw) -> None:
    for job_id in ("a", "b", "c"):
        raw.enqueue(job_id)
    a, b, c = raw.claim(count=3).jobs

    settled = raw.settle_all(
        [
            Settlement(a.id, a.token, "succeed", b"1", 1_000),
            Settlement(b.id, b.token + 1, "succeed", b"1", 1_000),
            Settlement(c.id, c.token, "retry", b"{}", 1_000),
        ]
    )

    assert settled.verdicts == ["ok", "stale", "ok"]
    assert raw.processing() == ["b"]


def test_the_next_jobs_come_with_the_same_round_trip(raw: Raw) -> None:
    job = started(raw)
    for job_id in ("b", "c", "d"):
        raw.enqueue(job_id)

    settled = raw.settle_all([Settlement(job.id, job.token, "succeed", b"1", 1_000)], count=2)

    assert settled.verdicts == ["ok"]
    assert [next_job.id for next_job in settled.jobs] == ["b", "c"]
    assert raw.processing() == ["b", "c"]


def test_a_worker_that_was_struck_from_the_registry_settles_but_gets_no_more(raw: Raw) -> None:
    raw.enqueue("b")
    raw.redis.hdel(raw.keys.workers, "w")

    settled = raw.settle_all([], count=1)

    assert settled.jobs == []
    assert raw.ready() == ["b"]


def test_a_faulty_lane_is_named_while_others_are_claimed(raw: Raw) -> None:
    raw.spoil(raw.keys.ready("q:critical"))
    raw.enqueue("a")

    settled = raw.settle_all([], count=1)

    assert [job.id for job in settled.jobs] == ["a"]
    assert settled.faults[0].startswith("q:critical: ")


@pytest.mark.parametrize(("outcome", "key"), [("retry", "scheduled"), ("bury", "dead")])
def test_a_new_place_of_a_wrong_type_leaves_the_job_where_it_is(raw: Raw, outcome: str, key: str) -> None:
    job = started(raw)
    raw.spoil({"scheduled": raw.keys.scheduled, "dead": raw.keys.dead}[key])
    before = raw.picture()

    assert raw.settle(job, outcome, b"{}", 1_000).startswith("fault: WRONGTYPE")

    assert raw.picture() == before
    assert raw.processing() == ["a"]


@pytest.mark.parametrize("number", [0, 60_000])
def test_counters_of_a_wrong_type_do_not_hinder_a_settle(raw: Raw, number: int) -> None:
    job = started(raw)
    raw.spoil(raw.keys.stats)

    assert raw.settle(job, "succeed", b"1", number) == "ok"
    assert raw.processing() == []


def test_a_processing_list_that_somebody_overwrote_does_not_cost_the_result(raw: Raw) -> None:
    job = started(raw)
    raw.spoil(raw.keys.processing("w"))

    assert raw.settle(job) == "ok"
    assert raw.job("a")["state"] == "succeeded"


def test_a_record_of_a_wrong_type_is_stale_and_left_as_it_is(raw: Raw) -> None:
    job = started(raw)
    raw.redis.delete(raw.keys.job("a"))
    raw.spoil(raw.keys.job("a"))

    assert raw.settle(job) == "stale"
    assert raw.redis.get(raw.keys.job("a")) == b"not yours"


def test_a_registry_of_a_wrong_type_fails_loudly_after_the_settle(raw: Raw) -> None:
    job = started(raw)
    raw.enqueue("b")
    raw.spoil(raw.keys.workers)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        raw.settle_all([Settlement(job.id, job.token, "succeed", b"1", 1_000)], count=1)

    assert raw.ready() == ["b"]


def test_a_deferred_job_is_offered_again_uncharged(raw: Raw) -> None:
    job = started(raw)

    assert raw.settle(job, "defer", b"{}", 60_000) == "ok"

    record = raw.job("a")
    assert (record["state"], record.get("errors")) == ("scheduled", None)
    assert 0 < raw.scheduled()["a"] - raw.now_ms() <= 1_000
    assert raw.processing() == []
    assert raw.stat("deferred") == 1


def test_a_job_deferred_for_too_long_is_buried(raw: Raw) -> None:
    job = started(raw)
    raw.redis.hset(raw.keys.job("a"), "deferred_since", raw.now_ms() - 60_000)

    assert raw.settle(job, "defer", b'{"type": "UnknownTask"}', 60_000) == "ok"

    assert (raw.job("a")["state"], raw.dead()) == ("dead", ["a"])
    assert raw.job("a")["error"] == '{"type": "UnknownTask"}'


def test_a_job_is_buried_at_once_without_patience(raw: Raw) -> None:
    assert raw.settle(started(raw), "defer", b"{}", 0) == "ok"

    assert raw.dead() == ["a"]
