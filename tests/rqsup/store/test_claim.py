"""claim.lua: takes jobs from many lanes, resumes a worker's own, or registers it as waiting."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup import Client
from rqsup.store import scripts
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw, envelope


def test_a_claimed_job_moves_to_the_workers_list_with_a_new_token(raw: Raw) -> None:
    raw.enqueue("a")

    claim = raw.claim()

    assert [(job.id, job.token, job.attempt, job.envelope) for job in claim.jobs] == [("a", 1, 1, envelope("a"))]
    assert raw.ready() == []
    assert raw.processing() == ["a"]
    record = raw.job("a")
    assert (record["state"], record["worker"], record["token"]) == ("active", "w", "1")
    assert abs(int(record["started_at"]) - raw.now_ms()) < 5_000


def test_a_job_that_failed_and_crashed_before_is_claimed_with_both_counts(raw: Raw) -> None:
    raw.enqueue("a")
    raw.settle(raw.claim().jobs[0], "crash", b"{}", 3)
    raw.settle(raw.claim().jobs[0], "retry", b"{}", 0)
    raw.run(scripts.promote(raw.root))

    [again] = raw.claim().jobs

    assert (again.id, again.errors, again.crashes, again.attempt) == ("a", 1, 1, 3)
    assert str(again.token) == raw.job("a")["token"]


def test_a_second_claim_takes_nothing_and_leaves_the_first_alone(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    before = raw.picture()

    assert raw.claim().jobs == []
    assert raw.picture() == before


def test_prefetch_takes_as_many_as_asked_and_no_more(raw: Raw) -> None:
    for number in range(5):
        raw.enqueue(f"j{number}")

    assert [job.id for job in raw.claim(count=3).jobs] == ["j0", "j1", "j2"]
    assert raw.processing() == ["j0", "j1", "j2"]
    assert raw.ready() == ["j3", "j4"]


def test_higher_levels_come_first_over_all_queues_and_listed_queues_first_inside_a_level(raw: Raw) -> None:
    for queue in ("one", "two"):
        for level in ("low", "normal", "high"):
            raw.enqueue(f"{queue}-{level}", queue=queue, level=level)

    taken = [job.id for job in raw.claim(count=10, queues=("two", "one")).jobs]

    assert taken == ["two-high", "one-high", "two-normal", "one-normal", "two-low", "one-low"]


def test_a_thousand_jobs_on_three_levels_come_out_in_order(raw: Raw) -> None:
    levels = ("low", "normal", "high")
    for number in range(1_000):
        raw.enqueue(f"{number:04}", level=levels[number % 3])

    taken = [job.id for _ in range(100) for job in raw.claim(count=10).jobs]

    expected = [f"{n:04}" for level in ("high", "normal", "low") for n in range(1_000) if levels[n % 3] == level]
    assert taken == expected


@pytest.mark.parametrize("count", [1, 3, 50])
def test_jobs_of_many_queues_come_in_the_order_of_levels_and_queues(raw: Raw, count: int) -> None:
    queues = [f"q{number}" for number in range(30)]
    for queue in ("q29", "q3", "q17"):
        raw.enqueue(f"{queue}-low", queue=queue, level="low")
        raw.enqueue(f"{queue}-high", queue=queue, level="high")

    taken = [job.id for job in raw.claim(count=count, queues=queues).jobs]

    assert taken == ["q3-high", "q17-high", "q29-high", "q3-low", "q17-low", "q29-low"][:count]


def test_thirty_queues_in_one_claim(raw: Raw) -> None:
    queues = [f"q{number}" for number in range(30)]
    raw.enqueue("last", queue="q29", level="very_low")

    assert [job.id for job in raw.claim(queues=queues).jobs] == ["last"]


def test_a_worker_that_is_not_registered_gets_nothing(raw: Raw) -> None:
    raw.enqueue("a")
    before = raw.picture(without=())

    claim = raw.claim("stranger", resume=True, wait=True)

    assert claim.registered is False
    assert claim.jobs == []
    assert raw.picture(without=()) == before


def test_a_worker_that_finds_nothing_is_registered_as_waiting_for_all_its_queues(raw: Raw) -> None:
    assert raw.claim(queues=("q", "p"), wait=True).jobs == []

    assert raw.redis.smembers(raw.keys.waiting) == {b"w"}
    assert raw.redis.smembers(raw.keys.idle("q")) == {b"w"}
    assert raw.redis.smembers(raw.keys.idle("p")) == {b"w"}


def test_a_worker_that_waits_on_changes_nothing_by_two_commands(private_redis: LocalServer, namespace: str) -> None:
    with Client(private_redis.url, namespace=namespace) as client:
        raw = Raw(client)
        raw.register("w")
        raw.claim(wait=True, queues=["q", "r"])
        raw.claim(resume=True, wait=True, queues=["q", "r"])
        before = raw.commands()

        claim = raw.claim(resume=True, wait=True, queues=["q", "r"])

        assert raw.commands() - before - 1 == 1 + 2, "the script and what it calls"
        assert (claim.jobs, claim.faults, claim.registered) == ([], [], True)
        assert raw.redis.smembers(raw.keys.waiting) == raw.redis.smembers(raw.keys.idle("q")) == {b"w"}


@pytest.mark.parametrize("place", ["lane", "inbox", "processing"])
def test_a_worker_that_waits_on_finds_what_has_come(raw: Raw, place: str) -> None:
    raw.enqueue("a")
    raw.claim(wait=True, queues=["elsewhere"])
    if place != "lane":
        key = raw.keys.inbox("w") if place == "inbox" else raw.keys.processing("w")
        raw.redis.lmove(raw.keys.ready("q:normal"), key)

    claim = raw.claim(resume=True, wait=True)

    assert [job.id for job in claim.jobs] == ["a"]
    assert not raw.redis.sismember(raw.keys.waiting, "w")


def test_a_worker_that_was_taken_off_the_list_waits_again(raw: Raw) -> None:
    raw.claim(wait=True)
    raw.redis.srem(raw.keys.waiting, "w")
    raw.redis.srem(raw.keys.idle("q"), "w")

    raw.claim(resume=True, wait=True)

    assert raw.redis.smembers(raw.keys.waiting) == raw.redis.smembers(raw.keys.idle("q")) == {b"w"}


def test_a_worker_that_finds_a_job_does_not_wait(raw: Raw) -> None:
    raw.enqueue("a")

    raw.claim(wait=True)

    assert raw.redis.scard(raw.keys.waiting) == 0


def test_resume_returns_the_workers_own_jobs_first_oldest_first_with_new_tokens(raw: Raw) -> None:
    for job_id in ("a", "b", "c"):
        raw.enqueue(job_id)
    raw.claim(count=2)  # the reply is lost

    claim = raw.claim(resume=True)

    assert [(job.id, job.token, job.attempt) for job in claim.jobs] == [("a", 2, 1), ("b", 2, 1)]
    assert raw.ready() == ["c"]


def test_resume_takes_from_the_lanes_when_the_own_lists_are_empty(raw: Raw) -> None:
    raw.enqueue("a")

    assert [job.id for job in raw.claim(resume=True).jobs] == ["a"]


def test_resume_with_count_zero_looks_into_the_own_lists_only(raw: Raw) -> None:
    raw.enqueue("a")

    assert raw.claim(count=0, resume=True).jobs == []
    assert raw.ready() == ["a"]


def test_resume_begins_what_was_handed_to_the_inbox_and_ends_the_waiting(raw: Raw) -> None:
    raw.claim(wait=True)
    raw.enqueue("a")
    raw.redis.sadd(raw.keys.waiting, "w")  # as if it had registered again

    claim = raw.claim(resume=True)

    assert [job.id for job in claim.jobs] == ["a"]
    assert raw.inbox() == []
    assert raw.processing() == ["a"]
    assert raw.redis.scard(raw.keys.waiting) == 0


def test_resume_begins_what_a_blocking_move_brought_into_the_own_list(raw: Raw) -> None:
    raw.claim(wait=True)
    raw.enqueue("a")
    raw.redis.blmove(raw.keys.inbox("w"), raw.keys.processing("w"), 1, "RIGHT", "LEFT")

    assert raw.job("a")["state"] == "ready"
    assert [job.id for job in raw.claim(count=0, resume=True).jobs] == ["a"]
    assert raw.job("a")["state"] == "active"


def test_resume_drops_what_was_settled_meanwhile(raw: Raw) -> None:
    raw.enqueue("a")
    raw.settle(raw.claim().jobs[0])
    raw.redis.lpush(raw.keys.processing("w"), "a")

    assert raw.claim(resume=True).jobs == []
    assert raw.processing() == []
    assert raw.job("a")["state"] == "succeeded"


def test_a_lane_of_a_wrong_type_is_named_and_does_not_stop_the_others(raw: Raw) -> None:
    raw.enqueue("a", level="low")
    raw.spoil(raw.keys.ready("q:high"))

    claim = raw.claim()

    assert [job.id for job in claim.jobs] == ["a"]
    assert len(claim.faults) == 1
    assert claim.faults[0].startswith("q:high: ")
    assert "WRONGTYPE" in claim.faults[0]


@pytest.mark.parametrize("key", ["waiting", "idle", "stats"])
def test_a_wrong_type_where_no_job_is_kept_does_not_hinder_a_claim(raw: Raw, key: str) -> None:
    raw.spoil({"waiting": raw.keys.waiting, "idle": raw.keys.idle("q"), "stats": raw.keys.stats}[key])
    raw.redis.lpush(raw.keys.ready("q:high"), "junk")
    raw.enqueue("a")

    assert [job.id for job in raw.claim(resume=True).jobs] == ["a"]
    assert raw.claim(wait=True).jobs == []


@pytest.mark.parametrize("key", ["workers", "processing", "inbox"])
def test_own_keys_of_a_wrong_type_fail_loudly_and_move_nothing(raw: Raw, key: str) -> None:
    raw.enqueue("a")
    raw.spoil({"workers": raw.keys.workers, "processing": raw.keys.processing("w"), "inbox": raw.keys.inbox("w")}[key])
    before = raw.picture()

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        raw.claim(resume=True)

    assert raw.picture() == before


JUNK = [b"no-record", b"\xff\xfe raw \x00 bytes", b"", b"x" * 5_000]


@pytest.mark.parametrize("junk", JUNK, ids=["unknown", "raw-bytes", "empty", "long"])
def test_an_id_without_a_record_is_buried_and_the_next_job_is_claimed(raw: Raw, junk: bytes) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), junk)
    raw.enqueue("a")

    assert [job.id for job in raw.claim().jobs] == ["a"]

    assert raw.processing() == ["a"]
    assert raw.redis.zrange(raw.keys.dead, 0, -1) == [junk]
    record = raw.redis.hgetall(raw.keys.root.encode() + b"job:" + junk)
    assert record[b"state"] == b"dead"
    assert b"unreadable" in record[b"reason"]
    assert raw.stat("dead") == 1


def test_a_record_of_a_wrong_type_is_buried_and_left_as_it_is(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), "odd")
    raw.spoil(raw.keys.job("odd"))

    assert raw.claim().jobs == []

    assert raw.dead() == ["odd"]
    assert raw.processing() == []
    assert raw.redis.get(raw.keys.job("odd")) == b"not yours"


def test_a_record_without_an_envelope_is_buried(raw: Raw) -> None:
    raw.enqueue("a")
    raw.redis.hdel(raw.keys.job("a"), "envelope")

    assert raw.claim().jobs == []
    assert raw.job("a")["state"] == "dead"
    assert raw.dead() == ["a"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_second_copy_of_an_id_is_dropped_and_the_job_runs_once(raw: Raw, count: int) -> None:
    raw.enqueue("a")
    raw.redis.lpush(raw.keys.ready("q:normal"), "a")

    taken = [job.token for _ in range(2) for job in raw.claim(count=count).jobs]

    assert taken == [1]
    assert raw.processing() == ["a"]
    assert raw.stat("strays") == 1


def test_a_second_copy_in_the_own_list_is_resumed_once(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    raw.redis.lpush(raw.keys.processing("w"), "a")

    assert [job.token for job in raw.claim(resume=True).jobs] == [2]
    assert raw.processing() == ["a"]


def test_resume_leaves_the_jobs_alone_that_the_worker_has_in_hand(raw: Raw) -> None:
    for job_id in ("a", "b", "c"):
        raw.enqueue(job_id)
    raw.claim(count=3)
    raw.claim(wait=True)
    raw.enqueue("handed")

    call = scripts.claim(
        raw.root, worker="w", count=1, lanes=["q:normal"], queues=["q"], resume=True, wait=False,
        in_hand=["a", "\udcff foreign", "c"],
    )  # fmt: skip

    assert sorted((job.id, job.token) for job in raw.run(call).jobs) == [("b", 2), ("handed", 1)]
    assert {raw.job(job_id)["token"] for job_id in ("a", "c")} == {"1"}


def test_a_copy_of_another_workers_job_is_dropped(raw: Raw) -> None:
    raw.register("other")
    raw.enqueue("a")
    raw.claim("other")
    raw.redis.lpush(raw.keys.ready("q:normal"), "a")

    assert raw.claim("w").jobs == []
    assert raw.processing("other") == ["a"]
    assert raw.job("a")["worker"] == "other"


def test_foreign_bytes_survive_the_way_through_python(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), b"\xff")
    raw.redis.hset(raw.keys.root.encode() + b"job:\xff", mapping={"state": "ready", "envelope": "?", "queue": "q"})

    job = raw.claim().jobs[0]

    assert raw.settle(job, "bury", b"{}", 0) == "ok"
    assert raw.redis.zrange(raw.keys.dead, 0, -1) == [b"\xff"]


def test_a_call_counts_its_lanes() -> None:
    call = scripts.claim("r:", worker="w", count=2, lanes=["q:high", "q:low"], queues=["q"], resume=True, wait=False)

    assert call.arguments == ("w", 2, 1, 0, b"", 2, "q:high", "q:low", "q")
