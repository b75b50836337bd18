"""States, levels, and what a record tells."""

from __future__ import annotations

from typing import Any

import pytest

from rqsup.job import ENDED_STATES, FINISHED_STATES, LEVEL_LABELS, OPEN_STATES, TRANSITIONS, Job, JobState, Level
from rqsup.store.records import read_record


def test_every_state_is_open_or_ended_and_never_both() -> None:
    assert set(JobState) == OPEN_STATES | ENDED_STATES
    assert not OPEN_STATES & ENDED_STATES
    assert FINISHED_STATES < ENDED_STATES


def test_every_state_can_be_reached_and_every_open_state_be_left() -> None:
    assert {end for _, end in TRANSITIONS} == set(JobState)
    assert {start for start, _ in TRANSITIONS if start} == OPEN_STATES | {JobState.DEAD}


def test_levels_are_listed_highest_first() -> None:
    assert LEVEL_LABELS == ("critical", "very_high", "high", "normal", "low", "very_low")
    assert Level.CRITICAL > Level.VERY_LOW


@pytest.mark.parametrize("value", ["high", 4, Level.HIGH])
def test_a_level_is_read_from_its_name_or_number(value: str | int | Level) -> None:
    assert Level.parse(value) is Level.HIGH


@pytest.mark.parametrize("value", ["HIGH", "", "urgent", 0, 7])
def test_an_unknown_level_is_refused(value: str | int) -> None:
    with pytest.raises(ValueError, match=r"priority|not a valid Level"):
        Level.parse(value)


def test_a_record_is_read_from_its_fields() -> None:
    record = read_record(
        "a",
        {b"state": b"active", b"envelope": b'{"id":"a","task":"t"}', b"queue": b"q", b"errors": b"2", b"crashes": b"1"},
    )

    assert record
    assert (record.state, record.task, record.queue, record.attempts) == (JobState.ACTIVE, "t", "q", 4)
    assert (record.worker, record.result, record.error) == (None, None, None)


@pytest.mark.parametrize(
    ("raw", "error"), [(b'{"a": 1}', {"a": 1}), (b"no json", {"message": "no json"}), (b"[1]", {"message": "[1]"}), (b"\xff", {"message": "\\xff"})]
)  # fmt: skip
def test_an_error_is_shown_whatever_it_is(raw: bytes, error: dict[str, object]) -> None:
    record = read_record("a", {b"state": b"dead", b"error": raw, b"errors": b"many"})

    assert record
    assert (record.error, record.errors, record.task) == (error, 0, None)


@pytest.mark.parametrize("fields", [{}, {b"state": b"odd"}, {b"state": b"\xff"}])
def test_fields_that_rqsup_did_not_write_are_no_record(fields: dict[bytes, bytes]) -> None:
    assert read_record("a", fields) is None


def test_a_job_that_was_never_read_has_no_state() -> None:
    client: Any = None  # a job looks at its client only when it is asked to

    job = Job("a", client)

    assert job.state is None
