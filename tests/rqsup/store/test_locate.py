"""locate.lua: every place that holds a job, at one moment."""

from __future__ import annotations

from rqsup.store import scripts
from rqsup.store.keys import lanes
from rqsup.store.scripts import Location
from tests.rqsup.store.raw import Raw


def locate(raw: Raw, job_id: str = "a", workers: tuple[str, ...] = ()) -> Location:
    return raw.run(scripts.locate(raw.root, job_id=job_id, lanes=lanes(["q"]), workers=workers))


def test_each_state_is_found_in_its_place(raw: Raw) -> None:
    raw.enqueue("a")
    assert locate(raw) == Location("ready", "", "q:normal", -1, ["ready:q:normal"])

    job = raw.claim().jobs[0]
    assert locate(raw) == Location("active", "w", "q:normal", -1, ["processing:w"])

    raw.settle(job, "retry", b"{}", 60_000)
    assert locate(raw) == Location("scheduled", "w", "q:normal", -1, ["scheduled"])


def test_a_job_that_was_handed_over_lies_in_the_inbox(raw: Raw) -> None:
    raw.claim(wait=True)
    raw.enqueue("a")

    assert locate(raw) == Location("ready", "", "q:normal", -1, ["inbox:w"])


def test_a_dead_letter_and_a_finished_job(raw: Raw) -> None:
    raw.enqueue("a")
    raw.settle(raw.claim().jobs[0], "bury", b"{}", 0)
    raw.enqueue("b")
    raw.settle(raw.claim().jobs[0])

    assert locate(raw, "a") == Location("dead", "w", "q:normal", -1, ["dead"])
    finished = locate(raw, "b")
    assert (finished.state, finished.places) == ("succeeded", [])
    assert finished.ttl_ms > 0


def test_a_job_in_a_lane_that_nobody_named_is_found_by_its_record(raw: Raw) -> None:
    raw.enqueue("a", queue="unlisted")

    assert locate(raw).places == ["ready:unlisted:normal"]


def test_all_copies_are_found_each_once(raw: Raw) -> None:
    raw.enqueue("a")
    raw.redis.lpush(raw.keys.ready("q:normal"), "a")
    raw.redis.lpush(raw.keys.ready("q:low"), "a")
    raw.redis.lpush(raw.keys.processing("gone"), "a")
    raw.redis.zadd(raw.keys.dead, {"a": 1})

    found = locate(raw, workers=("gone", "w"))

    assert sorted(found.places) == ["dead", "processing:gone", "ready:q:low", "ready:q:normal", "ready:q:normal"]


def test_an_unknown_id_is_nowhere(raw: Raw) -> None:
    assert locate(raw) == Location("", "", ":", -2, [])


def test_looking_changes_nothing_however_often(raw: Raw) -> None:
    raw.enqueue("a")
    before = raw.picture(without=())

    assert locate(raw) == locate(raw)
    assert raw.picture(without=()) == before


def test_keys_of_a_wrong_type_hold_nothing_and_do_not_hinder_the_look(raw: Raw) -> None:
    raw.enqueue("a")
    for key in (raw.keys.ready("q:high"), raw.keys.inbox("w"), raw.keys.scheduled, raw.keys.dead, raw.keys.workers):
        raw.spoil(key)

    assert locate(raw).places == ["ready:q:normal"]


def test_a_record_of_a_wrong_type_has_no_state(raw: Raw) -> None:
    raw.spoil(raw.keys.job("a"))
    raw.redis.lpush(raw.keys.ready("q:normal"), "a")

    assert locate(raw) == Location("", "", ":", -1, ["ready:q:normal"])


def test_an_id_of_foreign_bytes_can_be_looked_for(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), b"\xff")

    assert locate(raw, "\udcff").places == ["ready:q:normal"]
