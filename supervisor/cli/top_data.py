"""What `rqsup top` shows: pictures of several masters, their rates, and the order of the lines. Pure but for `look`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rqsup.errors import RqsupError
from rqsup.settings import Settings
from rqsup.supervisor.ports import dial
from rqsup.supervisor.snapshot import Snapshot, WorkerView

#: Seconds for a master to answer; a slower one shows as such.
ANSWER_S = 3.0
#: Ends of an attempt, and those of them that are no success.
ENDS = ("succeeded", "retried", "buried", "crashed")
FAILURES = ("retried", "buried", "crashed")
#: Keys that choose the order of the workers, and what each means.
ORDERS = {"n": "number", "a": "job age", "m": "memory", "t": "task", "r": "rate", "s": "state"}


@dataclass(frozen=True, slots=True)
class Look:
    """One pool at one moment. Without a snapshot, `fault` says why."""

    pool: str
    #: CLOCK_MONOTONIC.
    at: float
    snapshot: Snapshot | None = None
    fault: str = ""
    #: Ready jobs by queue and level; None = not known.
    ready: dict[str, dict[str, int]] | None = None
    scheduled: int | None = None
    dead: int | None = None


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool with its rates per second; None = not known yet."""

    look: Look
    ended_per_s: float | None
    failed_per_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker of one pool."""

    pool: str
    #: Which of the configurations it belongs to.
    index: int
    worker: WorkerView
    per_s: float | None


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One queue; pools of one namespace share it."""

    namespace: str
    name: str
    ready: dict[str, int]

    @property
    def total(self) -> int:
        """Ready jobs of all levels."""
        return sum(self.ready.values())


def look(settings: Settings) -> Look:
    """Ask one master. Never raises: a pool that does not answer is shown as such."""
    socket = settings.control.socket
    try:
        snapshot = msgspec.convert(dial.request(socket, "status", timeout_s=ANSWER_S), Snapshot)
        queues = dial.request(socket, "queues", timeout_s=ANSWER_S)
    except RqsupError as fault:
        return Look(settings.pool, time.monotonic(), fault=str(fault))
    except msgspec.ValidationError as fault:
        return Look(settings.pool, time.monotonic(), fault=f"another version of rqsup runs there: {fault}")
    return Look(
        snapshot.pool, time.monotonic(), snapshot, ready=queues.get("ready"), scheduled=queues.get("scheduled"),
        dead=queues.get("dead"),
    )  # fmt: skip


def pool_rows(before: Sequence[Look], now: Sequence[Look]) -> list[PoolRow]:
    """The pools with their rates since the look before."""
    earlier = list(before) if len(before) == len(now) else [None] * len(now)
    return [
        PoolRow(new, _rate(old, new, ENDS), _rate(old, new, FAILURES)) for old, new in zip(earlier, now, strict=True)
    ]


def worker_rows(before: Sequence[Look], now: Sequence[Look], order: str, *, reverse: bool) -> list[WorkerRow]:
    """All workers in the chosen order."""
    known = {
        (index, worker.id): (old.at, _ended(worker))
        for index, old in enumerate(before)
        for worker in (old.snapshot.workers if old.snapshot else ())
    }
    rows = []
    for index, new in enumerate(now):
        for worker in new.snapshot.workers if new.snapshot else ():
            at, ended = known.get((index, worker.id), (new.at, 0))
            per_s = (_ended(worker) - ended) / (new.at - at) if new.at > at else None
            rows.append(WorkerRow(new.pool, index, worker, per_s))
    return sorted(rows, key=lambda row: _place(row, order), reverse=reverse)


def queue_rows(now: Sequence[Look]) -> list[QueueRow]:
    """The queues, fullest first; one that several pools of a namespace take from shows once."""
    found = {
        (look.snapshot.namespace, name): QueueRow(look.snapshot.namespace, name, levels)
        for look in now
        if look.snapshot
        for name, levels in (look.ready or {}).items()
    }
    return sorted(found.values(), key=lambda row: (-row.total, row.namespace, row.name))


def _ended(worker: WorkerView) -> int:
    return worker.succeeded + worker.retried + worker.buried


def _rate(old: Look | None, new: Look, names: Sequence[str]) -> float | None:
    if old is None or not old.snapshot or not new.snapshot or new.at <= old.at or old.snapshot.pid != new.snapshot.pid:
        return None
    grown = sum(new.snapshot.counters.get(name, 0) - old.snapshot.counters.get(name, 0) for name in names)
    return max(0.0, grown / (new.at - old.at))


def _place(row: WorkerRow, order: str) -> tuple[Any, ...]:
    """Where a line stands; the largest first where that is what one looks for."""
    worker = row.worker
    last = (row.index, worker.number, worker.generation)
    match order:
        case "job age":
            return (-(worker.job_age_s or -1.0), *last)
        case "memory":
            return (-worker.memory_bytes, *last)
        case "task":
            return (worker.task or "~", *last)
        case "rate":
            return (-(row.per_s or 0.0), *last)
        case "state":
            return (worker.state, *last)
    return last
