"""Reads a job's hash into a `JobRecord`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rqsup.envelope import decode
from rqsup.errors import EnvelopeError
from rqsup.job import JobRecord, JobState
from rqsup.worker_id import generation_of


def read_record(job_id: str, fields: Mapping[bytes, bytes]) -> JobRecord | None:
    """The record in these hash fields; None when there are none, or none that rqsup wrote."""

    def text(name: str) -> str | None:
        value = fields.get(name.encode())
        return None if value is None else value.decode("utf-8", "backslashreplace")

    def number(name: str) -> int | None:
        value = fields.get(name.encode())
        return int(value) if value is not None and value.lstrip(b"-").isdigit() else None

    try:
        state = JobState(text("state") or "")
    except ValueError:
        return None
    envelope = fields.get(b"envelope", b"")
    return JobRecord(
        id=job_id, state=state, task=_task_name(envelope), queue=text("queue") or "", level=text("level") or "",
        envelope=envelope, token=number("token") or 0, errors=number("errors") or 0, crashes=number("crashes") or 0,
        returns=number("returns") or 0, worker=text("worker"), enqueued_at=number("enqueued_at"),
        due_at=number("due_at"), started_at=number("started_at"), finished_at=number("finished_at"),
        dead_at=number("dead_at"), result=fields.get(b"result"), error=_json(text("error")),
        reason=text("reason"), crash=_json(text("crash")), returned=_json(text("returned")),
        generation=generation_of(text("worker") or ""),
    )  # fmt: skip


def _task_name(envelope: bytes) -> str | None:
    try:
        return decode(envelope).task
    except EnvelopeError:
        return None


def _json(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return {"message": text}
    return value if isinstance(value, dict) else {"message": str(value)}
