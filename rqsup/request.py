"""What a client asks of Redis, and what the answers mean: pure, shared by `Client` and `AsyncClient`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from rqsup.config_checks import client_faults
from rqsup.envelope import check_name
from rqsup.errors import ConfigError, JobFailed, JobNotCancellable, JobNotFound
from rqsup.job import JobRecord, JobState, Level
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.keys import Keys
from rqsup.store.records import read_record
from rqsup.store.scripts import Call
from rqsup.task import Task

#: First and longest pause between two looks at an unfinished job, seconds.
RESULT_PAUSE_S, RESULT_PAUSE_CAP_S = 0.002, 0.1
#: Most jobs, and bytes after which no more are added, that `enqueue_many` sends in one round trip.
CHUNK, CHUNK_BYTES = 500, 1 << 20
#: Jobs in one call of the script: half a millisecond of the server's time.
CALL_JOBS = 100


class Request(msgspec.Struct, frozen=True):
    """One job to be enqueued, for `enqueue_many`; the fields are those of `Client.enqueue`."""

    task: Task[..., Any] | str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    job_id: str | None = None
    queue: str | None = None
    priority: str | int | Level | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    delay_s: float = 0.0
    due_at: datetime | None = None


def choose(settings: Settings | None, url: str | None, namespace: str | None) -> Settings:
    """The settings of a client: those given, or the defaults, with another address or namespace.

    Raises:
        ConfigError: the address or the namespace is outside what a configuration may say. Jobs sent to such a
            namespace would be accepted, and no pool could ever take them.
    """
    if faults := client_faults(url, namespace):
        raise ConfigError(faults, origin="client")
    settings = settings or Settings()
    if url is not None:
        settings = msgspec.structs.replace(settings, redis=msgspec.structs.replace(settings.redis, url=url))
    if namespace is not None:
        settings = msgspec.structs.replace(settings, namespace=namespace)
    return settings


def cancel_call(job_id: str, settings: Settings) -> Call[str]:
    """What to send to cancel a job."""
    ttl_ms = max(1, int(settings.workers.result_ttl * 1000))
    return scripts.cancel(Keys(settings.namespace).root, job_id=check_name("job id", job_id), ttl_ms=ttl_ms)


def check_cancelled(job_id: str, verdict: str, settings: Settings) -> None:
    """Read the answer to a cancel.

    Raises:
        JobNotFound, JobNotCancellable: it was not cancelled.
    """
    if verdict == "missing":
        raise _not_found(job_id, settings)
    if verdict != "cancelled":
        raise JobNotCancellable(f"job {job_id} is {verdict}: only a ready or scheduled job can be cancelled")


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash as Redis sends it: names and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def found(job_id: str, fields: Mapping[bytes, bytes], settings: Settings) -> JobRecord:
    """Read a job's hash.

    Raises:
        JobNotFound: there is none.
    """
    record = read_record(job_id, fields)
    if record is None:
        raise _not_found(job_id, settings)
    return record


def _not_found(job_id: str, settings: Settings) -> JobNotFound:
    return JobNotFound(
        f"no job {job_id} in namespace {settings.namespace!r}: never accepted, or its record has expired"
    )


def has_result(record: JobRecord) -> bool:
    """True when the job has succeeded, False when it may yet.

    Raises:
        JobFailed: it never will.
    """
    if record.state in {JobState.DEAD, JobState.CANCELLED}:
        raise JobFailed(f"job {record.id} is {record.state}: {_why(record)}")
    return record.state is JobState.SUCCEEDED


def result_of(record: JobRecord) -> Any:
    """What the handler returned."""
    return json.loads(record.result or b"null")


def _why(record: JobRecord) -> str:
    if record.reason:
        return record.reason
    error = record.error or {}
    return str(error.get("message") or error.get("type") or "no reason recorded")
