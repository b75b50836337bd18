"""survey.lua: what many records say, for the state checker's first look."""

from __future__ import annotations

from rqsup.store import scripts
from rqsup.store.scripts import Location
from tests.rqsup.store.raw import Raw


def survey(raw: Raw, *job_ids: str) -> list[Location]:
    return raw.run(scripts.survey(raw.root, job_ids=job_ids))


def test_each_record_is_told_in_the_order_asked(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    raw.enqueue("b", queue="p", level="high")

    assert survey(raw, "b", "none", "a") == [
        Location("ready", "", "p:high", -1, []),
        Location("", "", ":", -2, []),
        Location("active", "w", "q:normal", -1, []),
    ]


def test_a_finished_record_tells_its_time_to_live(raw: Raw) -> None:
    raw.enqueue("a")
    raw.settle(raw.claim().jobs[0], number=60_000)

    assert 50_000 < survey(raw, "a")[0].ttl_ms <= 60_000


def test_looking_twice_changes_nothing(raw: Raw) -> None:
    raw.enqueue("a")
    before = raw.picture(without=())

    assert survey(raw, "a") == survey(raw, "a")
    assert raw.picture(without=()) == before


def test_a_record_of_a_wrong_type_has_no_state(raw: Raw) -> None:
    raw.spoil(raw.keys.job("odd"))

    assert survey(raw, "odd") == [Location("", "", ":", -1, [])]


def test_foreign_bytes_and_nothing_at_all_can_be_asked_for(raw: Raw) -> None:
    assert [job.state for job in survey(raw, "\udcff")] == [""]
    assert survey(raw) == []
