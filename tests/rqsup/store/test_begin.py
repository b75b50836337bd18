"""begin.lua: begins what was handed to a waiting worker, also when it comes late."""

from __future__ import annotations

from rqsup.store import scripts
from rqsup.store.scripts import Claim
from tests.rqsup.store.raw import Raw, envelope


def hand_over(raw: Raw, *job_ids: str) -> None:
    """As the enqueue of a job for which a worker waits, and the worker's BLMOVE."""
    for job_id in job_ids:
        raw.claim(wait=True)
        raw.enqueue(job_id)
        assert raw.redis.lmove(raw.keys.inbox("w"), raw.keys.processing("w"), "RIGHT", "LEFT") == job_id.encode()


def begin(raw: Raw) -> Claim:
    return raw.run(scripts.begin(raw.root, worker="w"))


def test_what_was_handed_over_begins_with_a_new_token(raw: Raw) -> None:
    hand_over(raw, "a")

    begun = begin(raw)

    assert [(job.id, job.token, job.attempt, job.envelope) for job in begun.jobs] == [("a", 1, 1, envelope("a"))]
    assert raw.processing() == ["a"]
    record = raw.job("a")
    assert (record["state"], record["worker"], record["token"]) == ("active", "w", "1")
    assert raw.settle(begun.jobs[0]) == "ok"


def test_several_come_oldest_first(raw: Raw) -> None:
    hand_over(raw, "a")
    raw.redis.lpush(raw.keys.inbox("w"), "b")
    raw.enqueue("b")
    raw.redis.lrem(raw.keys.ready("q:normal"), 1, "b")
    raw.redis.lmove(raw.keys.inbox("w"), raw.keys.processing("w"), "RIGHT", "LEFT")

    assert [job.id for job in begin(raw).jobs] == ["a", "b"]


def test_after_a_wait_without_a_job_it_changes_nothing(raw: Raw) -> None:
    raw.claim(wait=True)
    before = raw.picture(without=())

    assert begin(raw).jobs == []
    assert raw.picture(without=()) == before


def test_coming_late_it_leaves_alone_what_the_next_connection_has_begun(raw: Raw) -> None:
    hand_over(raw, "a")
    begun = raw.claim(resume=True).jobs[0]
    before = raw.picture(without=())

    assert begin(raw).jobs == []
    assert raw.picture(without=()) == before
    assert raw.settle(begun) == "ok"


def test_begun_without_an_answer_a_job_is_taken_back_with_a_new_token(raw: Raw) -> None:
    hand_over(raw, "a")
    lost = begin(raw).jobs[0]

    again = raw.claim(resume=True).jobs[0]

    assert again.token > lost.token
    assert raw.settle(lost) == "stale"
    assert raw.settle(again) == "ok"


def test_a_worker_that_is_not_registered_begins_nothing(raw: Raw) -> None:
    hand_over(raw, "a")
    raw.redis.hdel(raw.keys.workers, "w")

    answer = begin(raw)

    assert not answer.registered
    assert answer.jobs == []
    assert raw.job("a")["state"] == "ready"
    assert raw.processing() == ["a"]


def test_a_record_or_a_list_of_a_wrong_type_is_left_to_claim(raw: Raw) -> None:
    hand_over(raw, "a")
    raw.spoil(raw.keys.job("a"))
    assert begin(raw).jobs == []
    raw.spoil(raw.keys.processing("w"))
    assert begin(raw).jobs == []
