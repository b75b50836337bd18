"""What a client asks of Redis, and what the answers mean: pure, shared by `Client` and `AsyncClient`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from rqsup.envelope import Envelope, check_name, encode, new_id
from rqsup.errors import EnqueueError, InvalidJob, JobFailed, JobNotCancellable, JobNotFound, QueueFull
from rqsup.job import JobRecord, JobState, Level
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.keys import Keys
from rqsup.store.records import read_record
from rqsup.store.scripts import Call
from rqsup.task import Task

#: First and longest pause between two looks at an unfinished job, seconds.
RESULT_PAUSE_S, RESULT_PAUSE_CAP_S = 0.002, 0.1
#: Jobs sent in one round trip by `enqueue_many`.
CHUNK = 500
#: Jobs in one call of the script: half a millisecond of the server's time.
CALL_JOBS = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One job to be enqueued, for `enqueue_many`; the fields are those of `Client.enqueue`."""

    task: Task[..., Any] | str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    job_id: str | None = None
    queue: str | None = None
    priority: str | int | Level | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    delay_s: float = 0.0
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sending:
    """A request made ready: what to send, and the id that the job will have."""

    request: Request
    call: Call[str]
    job_id: str


def choose(settings: Settings | None, url: str | None, namespace: str | None) -> Settings:
    """The settings of a client: those given, or the defaults, with another address or namespace."""
    settings = settings or Settings()
    if url is not None:
        settings = msgspec.structs.replace(settings, redis=msgspec.structs.replace(settings.redis, url=url))
    if namespace is not None:
        settings = msgspec.structs.replace(settings, namespace=namespace)
    return settings


def prepare(request: Request, settings: Settings) -> Sending:
    """Check a request and make it ready.

    Raises:
        InvalidJob, PayloadTooLarge: it cannot become a job.
    """
    envelope = _envelope(request)
    call = scripts.enqueue(
        Keys(settings.namespace).root,
        job_id=envelope.id,
        queue=envelope.queue,
        level=envelope.level,
        envelope=encode(envelope, settings.limits.payload_bytes),
        due_ms=_due_ms(request),
        delay_ms=_delay_ms(request),
        max_length=settings.limits.queue_length,
    )
    return Sending(request, call, envelope.id)


def together(sendings: Sequence[Sending], settings: Settings) -> list[Call[list[str]]]:
    """What to send for many jobs: few calls, none of which keeps the server from others for long."""
    root, most = Keys(settings.namespace).root, settings.limits.queue_length
    calls = [sending.call for sending in sendings]
    return [
        scripts.enqueue_many(root, calls[start : start + CALL_JOBS], max_length=most)
        for start in range(0, len(calls), CALL_JOBS)
    ]


def check_accepted(sending: Sending, verdict: str, settings: Settings) -> None:
    """Read the answer to an enqueue.

    Raises:
        QueueFull, EnqueueError: the job was not accepted.
    """
    if verdict.startswith("fault: "):
        raise EnqueueError(f"Redis refused the job, a key that has to hold it is not rqsup's: {verdict}")
    if verdict == "full":
        raise QueueFull(
            f"queue {_envelope(sending.request).queue!r} holds {settings.limits.queue_length} jobs (limits.queue_length): "
            "send later, or start more workers"
        )


def check_all_accepted(
    sendings: Sequence[Sending], answers: Sequence[list[str] | Exception], settings: Settings
) -> None:
    """Read the answers to what `together` made. Raises as `check_accepted`."""
    verdicts: list[str] = []
    for answer in answers:
        if isinstance(answer, Exception):
            raise EnqueueError(f"Redis refused jobs: {answer}") from answer
        verdicts += answer
    for sending, verdict in zip(sendings, verdicts, strict=True):
        check_accepted(sending, verdict, settings)


def chunks(requests: Iterable[Request], settings: Settings) -> Iterator[list[Sending]]:
    """The requests made ready, so many at a time as go in one round trip; streams the iterable."""
    chunk: list[Sending] = []
    for request in requests:
        chunk.append(prepare(request, settings))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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


def _envelope(request: Request) -> Envelope:
    task = request.task
    declared = task if isinstance(task, Task) else None
    level = declared.level if declared and request.priority is None else request.priority
    try:
        label = Level.parse(Level.NORMAL if level is None else level).label
    except ValueError as fault:
        raise InvalidJob(str(fault)) from fault
    return Envelope(
        id=request.job_id or new_id(),
        task=declared.name if declared else str(task),
        queue=request.queue or (declared.queue if declared else "default"),
        level=label,
        args=list(request.args),
        kwargs=request.kwargs,
        max_attempts=request.max_attempts,
        timeout_s=request.timeout,
    )


def _due_ms(request: Request) -> int:
    if request.due_at is None:
        return 0
    if request.due_at.tzinfo is None:
        raise InvalidJob("the due time has no time zone: use datetime.now(timezone.utc) or .astimezone()")
    return int(request.due_at.timestamp() * 1000)


def _delay_ms(request: Request) -> int:
    if not 0 <= request.delay_s < 1e9:
        raise InvalidJob(f"the delay must be 0 to 1e9 seconds, not {request.delay_s}")
    return round(request.delay_s * 1000)


def _why(record: JobRecord) -> str:
    if record.reason:
        return record.reason
    error = record.error or {}
    return str(error.get("message") or error.get("type") or "no reason recorded")
