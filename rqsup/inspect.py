"""What operators look at: numbers, the next jobs, dead letters, and whether all is as it must be.

Nothing here changes a running job, and every command is short, so it may be used on a live server
at any time. Only `check` and `key_stats` walk through the key space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from rqsup.check import Fault, Report, check
from rqsup.envelope import Envelope, decode
from rqsup.errors import EnvelopeError
from rqsup.job import LEVEL_LABELS, JobRecord
from rqsup.store import scripts
from rqsup.store.connection import Store
from rqsup.store.keys import Keys
from rqsup.store.places import pages, raw, read_place, take_inventory, text
from rqsup.store.records import read_record

__all__ = [
    "DeadLetter", "Fault", "KeyStats", "PeekedJob", "QueueStats", "Replayed", "Report", "Stats", "WorkerStats", "check",
    "dead_letters", "find_letter", "key_stats", "peek", "purge_dead", "replay", "stats",
]  # fmt: skip

#: Longest text of a peeked job's arguments: a look at a queue must not print a megabyte.
ARGUMENTS_SHOWN = 200
#: Records read, or letters replayed, in one round trip.
RECORDS = 500


class QueueStats(msgspec.Struct, frozen=True):
    """One queue."""

    name: str
    #: Ready jobs by level, highest level first.
    ready: dict[str, int]
    #: Age of the job that waits longest, counted from its enqueue, seconds; None = no job is ready.
    oldest_s: float | None

    @property
    def total(self) -> int:
        """Ready jobs of all levels."""
        return sum(self.ready.values())


class WorkerStats(msgspec.Struct, frozen=True):
    """One worker of the registry."""

    id: str
    beats: int
    #: Jobs in its hands, begun or not.
    holds: int
    #: True while it waits for a job.
    waiting: bool
    #: What its master told with the last beat; None = that was too long ago.
    details: dict[str, Any] | None


class Stats(msgspec.Struct, frozen=True):
    """One namespace."""

    queues: list[QueueStats]
    scheduled: int
    active: int
    dead: int
    #: Events since the namespace began: accepted, succeeded, retried, dead, recovered …
    counters: dict[str, int]
    workers: list[WorkerStats]


class KeyStats(msgspec.Struct, frozen=True):
    """One key of the namespace; the job records are summed up as `job:*`."""

    key: str
    kind: str
    entries: int
    #: Memory as the server estimates it; None = this user may not ask, or it is a sum.
    bytes: int | None


class PeekedJob(msgspec.Struct, frozen=True):
    """One job that waits in a queue."""

    id: str
    #: None = the payload cannot be read; a worker will bury it.
    task: str | None
    level: str
    age_s: float | None
    attempts: int
    #: The arguments as JSON, cut off after 200 characters.
    arguments: str


class DeadLetter(msgspec.Struct, frozen=True):
    """One dead job with what is known of its end."""

    id: str
    task: str | None
    queue: str
    #: Why it died, in words.
    reason: str
    error_type: str | None
    error_message: str | None
    traceback: str | None
    #: Time of death, ms since the epoch by the server's clock.
    dead_at_ms: int
    attempts: int
    #: Worker that ran it last, and the host where the end was recorded.
    worker: str | None
    host: str | None
    #: The raw payload when it cannot be read; in JSON as base64.
    payload: bytes | None
    #: How its worker died in it the last time, in words, and where its threads were; None = it never did, or nobody knows.
    crash: str | None = None
    stack: str | None = None


class Replayed(msgspec.Struct, frozen=True):
    """What became of the letters to be replayed, by id."""

    replayed: list[str]
    #: Not among the dead letters (any more).
    missing: list[str]
    #: Kept: there is no record to run.
    unreadable: list[str]
    #: Redis refused, in words; the letters are kept.
    refused: dict[str, str]


def stats(store: Store, keys: Keys) -> Stats:
    """Numbers of a namespace; they are read one after another, so on a busy server they may differ by a few jobs."""
    client: Any = store.client
    queues = sorted(text(name) for name in client.smembers(keys.queues))
    workers = _workers(client, keys)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zcard(keys.scheduled).zcard(keys.dead).hgetall(keys.stats).time()
        scheduled, dead, counters, now = pipeline.execute()
    return Stats(
        queues=[_queue(client, keys, name, _ms(now)) for name in queues],
        scheduled=scheduled,
        active=sum(worker.holds for worker in workers),
        dead=dead,
        counters={text(name): int(count) for name, count in sorted(counters.items())},
        workers=workers,
    )


def _queue(client: Any, keys: Keys, name: str, now_ms: int) -> QueueStats:
    lanes = [keys.ready(f"{name}:{level}") for level in LEVEL_LABELS]
    with client.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            pipeline.llen(lane).lindex(lane, -1)
        replies = pipeline.execute()
    oldest = [text(job_id) for job_id in replies[1::2] if job_id is not None]
    with client.pipeline(transaction=False) as pipeline:
        for job_id in oldest:
            pipeline.hget(raw(keys.job(job_id)), "enqueued_at")
        born = [int(reply) for reply in pipeline.execute(raise_on_error=False) if isinstance(reply, bytes)]
    age_s = max(0.0, (now_ms - min(born)) / 1000) if born else None
    return QueueStats(name, dict(zip(LEVEL_LABELS, replies[0::2], strict=True)), age_s)


def _workers(client: Any, keys: Keys) -> list[WorkerStats]:
    registry = {text(name): int(beats) for name, beats in client.hgetall(keys.workers).items()}
    with client.pipeline(transaction=False) as pipeline:
        for name in registry:
            pipeline.get(keys.worker(name)).sismember(keys.waiting, name)
            pipeline.llen(keys.processing(name)).llen(keys.inbox(name))
        replies = iter(pipeline.execute())
    rows = zip(registry.items(), replies, replies, replies, replies, strict=True)
    return [
        WorkerStats(name, beats, processing + inbox, bool(waiting), _object(details))
        for (name, beats), details, waiting, processing, inbox in rows
    ]


def key_stats(store: Store, keys: Keys) -> list[KeyStats]:
    """The keys that exist, with their sizes; walks through the key space to count the job records."""
    found = take_inventory(store.client, keys)
    shared = (keys.workers, keys.waiting, keys.queues, keys.stats)
    names = [*found.places(), *(name.removeprefix(keys.root) for name in shared)]
    rows = [row for name in names if (row := _key(store.client, keys, name))]
    return [*rows, KeyStats("job:*", "hash", len(found.records), None)]


def _key(client: Any, keys: Keys, name: str) -> KeyStats | None:
    key = raw(keys.root + name)
    kind = text(client.type(key))
    sizes: dict[str, Any] = {"list": client.llen, "zset": client.zcard, "set": client.scard, "hash": client.hlen}
    if kind == "none":
        return None
    try:
        size = client.memory_usage(key)
    except ResponseError:
        size = None
    return KeyStats(name, kind, int(sizes[kind](key)) if kind in sizes else 1, size)


def peek(store: Store, keys: Keys, queue: str, count: int = 10) -> list[PeekedJob]:
    """The next jobs of a queue in the order in which they will be taken."""
    now_ms = _ms(store.client.time())
    jobs: list[PeekedJob] = []
    for level in LEVEL_LABELS:
        if len(jobs) >= count:
            break
        ids = store.client.lrange(keys.ready(f"{queue}:{level}"), len(jobs) - count, -1)
        names = [text(job_id) for job_id in reversed(ids)]
        jobs += [_peeked(job_id, level, record, now_ms) for job_id, record in _records(store, keys, names)]
    return jobs


def _peeked(job_id: str, level: str, record: JobRecord | None, now_ms: int) -> PeekedJob:
    envelope = _envelope(record)
    age_s = (now_ms - record.enqueued_at) / 1000 if record and record.enqueued_at is not None else None
    attempts = record.attempts if record else 0
    return PeekedJob(job_id, envelope.task if envelope else None, level, age_s, attempts, _arguments(envelope))


def _arguments(envelope: Envelope | None) -> str:
    if envelope is None:
        return ""
    shown = [msgspec.json.encode(value).decode() for value in envelope.args]
    shown += [f"{name}={msgspec.json.encode(value).decode()}" for name, value in envelope.kwargs.items()]
    line = ", ".join(shown)
    return line if len(line) <= ARGUMENTS_SHOWN else line[: ARGUMENTS_SHOWN - 1] + "…"


def dead_letters(store: Store, keys: Keys, offset: int = 0, count: int = 50) -> list[DeadLetter]:
    """Dead letters, the newest first."""
    entries = store.client.zrange(keys.dead, offset, offset + count - 1, desc=True, withscores=True)
    times = {text(job_id): int(score) for job_id, score in entries}
    return [_letter(job_id, times[job_id], record) for job_id, record in _records(store, keys, list(times))]


def find_letter(store: Store, keys: Keys, job_id: str) -> DeadLetter | None:
    """One dead letter, or None when the job is not among them."""
    dead_at = store.client.zscore(keys.dead, raw(job_id))
    if dead_at is None:
        return None
    [(_, record)] = _records(store, keys, [job_id])
    return _letter(job_id, int(dead_at), record)


def _letter(job_id: str, dead_at_ms: int, record: JobRecord | None) -> DeadLetter:
    if record is None:
        return DeadLetter(
            job_id, None, "", "unreadable job: there is no record", None, None, None, dead_at_ms, 0, None, None, None
        )
    error = record.error or {}
    evidence = (record.crash if record.reason else error) or error
    return DeadLetter(
        id=job_id, task=record.task, queue=record.queue,
        reason=record.reason or _error_line(error),
        error_type=_text_or_none(error.get("type")), error_message=_text_or_none(error.get("message")),
        traceback=_text_or_none(error.get("traceback")), dead_at_ms=dead_at_ms, attempts=record.attempts,
        worker=record.worker, host=_text_or_none(evidence.get("host")),
        payload=record.envelope if _envelope(record) is None else None,
        crash=_text_or_none((record.crash or {}).get("message")), stack=_text_or_none((record.crash or {}).get("stack")),
    )  # fmt: skip


def _error_line(error: dict[str, Any]) -> str:
    parts = [str(error[name]) for name in ("type", "message") if error.get(name)]
    return ": ".join(parts) or "no reason recorded"


def replay(store: Store, keys: Keys, job_ids: Iterable[str] | None = None, task: str | None = None) -> Replayed:
    """Put dead letters back into their queues, with no attempts behind them.

    Args:
        job_ids: the letters; None = all that are dead now.
        task: only letters of this task.
    """
    result = Replayed([], [], [], {})
    # Listed before the first is replayed: one that dies again at once must not be replayed for ever.
    if job_ids is None:
        job_ids = [job_id for page in read_place(store.client, keys, "dead") for job_id in page]
    for page in pages(job_ids, RECORDS):
        wanted = page if task is None else _of_task(store, keys, page, task)
        verdicts = store.run_many([scripts.replay(keys.root, job_id=job_id) for job_id in wanted])
        for job_id, verdict in zip(wanted, verdicts, strict=True):
            if isinstance(verdict, Exception):
                result.refused[job_id] = str(verdict)
            else:
                {"ready": result.replayed, "missing": result.missing}.get(verdict, result.unreadable).append(job_id)
    return result


def purge_dead(store: Store, keys: Keys) -> int:
    """Delete all dead letters with their records; answers how many."""
    deleted = 0
    while True:
        batch = store.run(scripts.purge_dead(keys.root, limit=RECORDS))
        deleted += batch
        if batch < RECORDS:
            return deleted


def _of_task(store: Store, keys: Keys, job_ids: Sequence[str], task: str) -> list[str]:
    return [job_id for job_id, record in _records(store, keys, job_ids) if record and record.task == task]


def _records(store: Store, keys: Keys, job_ids: Sequence[str]) -> list[tuple[str, JobRecord | None]]:
    with store.client.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hgetall(raw(keys.job(job_id)))
        replies = pipeline.execute(raise_on_error=False)
    # A record of a wrong type answers with an error.
    return [
        (job_id, read_record(job_id, fields) if isinstance(fields, dict) else None)
        for job_id, fields in zip(job_ids, replies, strict=True)
    ]


def _envelope(record: JobRecord | None) -> Envelope | None:
    try:
        return decode(record.envelope) if record else None
    except EnvelopeError:
        return None


def _object(data: bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(data) if data else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)


def _ms(server_time: Any) -> int:
    seconds, micros = server_time
    return int(seconds) * 1000 + int(micros) // 1000
