"""A worker's slot on the scoreboard: shared memory between one worker and its master.

Each field has one writer, named beside it. The current job is more than one field, so the worker
brackets it with `sequence`: odd while it writes. A store costs well under a microsecond, needs no
disk and no system call, and stays readable after the worker's death.
"""

from __future__ import annotations

import ctypes
import enum
import time
from dataclasses import dataclass
from mmap import mmap


class WorkerState(enum.IntEnum):
    """What a worker does, by its own account."""

    EMPTY = 0
    STARTING = 1
    IDLE = 2
    BUSY = 3
    QUIET = 4
    LEAVING = 5


class Order(enum.IntEnum):
    """What the master wants of a worker; it takes effect between two jobs."""

    WORK = 0
    QUIET = 1
    #: Finish the job, then leave.
    LEAVE = 2
    #: Give up the job, and leave.
    ABANDON = 3


class Spent(enum.IntEnum):
    """Why a worker leaves without being told to: it settles what it ran, and another takes its place."""

    NO = 0
    #: A soft timeout was raised somewhere in its code, which may have left anything half done.
    SOFT_TIMEOUT = 1
    #: It met a job on its last try, which runs alone in a fresh worker.
    LAST_TRY = 2
    #: Its next job needs a process of its own, and an earlier one left threads behind: a fork would be unsafe.
    THREADS = 3
    #: A job left coroutines behind that cannot be cancelled.
    COROUTINES = 4


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job a worker is inside. Times are seconds of CLOCK_MONOTONIC."""

    id: str
    task: str
    started: float
    soft_deadline: float
    hard_deadline: float


#: Bytes of a text field: ids and task names have at most 128.
TEXT_BYTES = 136


class Slot(ctypes.Structure):
    """One worker's fields. Text is cut to its field, numbers are aligned so that each store is whole."""

    _fields_ = (
        # Written by the master.
        ("order", ctypes.c_int64),
        ("lease_until", ctypes.c_double),
        # Written by the worker.
        ("state", ctypes.c_int64),
        ("turned", ctypes.c_double),
        ("succeeded", ctypes.c_uint64),
        ("retried", ctypes.c_uint64),
        ("buried", ctypes.c_uint64),
        ("crashed", ctypes.c_uint64),
        ("stale", ctypes.c_uint64),
        # Process group of the isolated job under way, 0 = none: the master ends it with the worker.
        ("job_group", ctypes.c_int64),
        ("spent", ctypes.c_int64),
        # Written by the worker, between two steps of `sequence`.
        ("sequence", ctypes.c_uint64),
        ("started", ctypes.c_double),
        ("soft_deadline", ctypes.c_double),
        ("hard_deadline", ctypes.c_double),
        ("job_id", ctypes.c_char * TEXT_BYTES),
        ("task", ctypes.c_char * TEXT_BYTES),
        # With several jobs at once (workers/flight.py), written by the worker: how many, 0 = it runs one at a time;
        ("jobs", ctypes.c_int64),
        # 1 while whatever happens is the current job's own doing: a step of it executes, or it has ignored its end;
        ("at_work", ctypes.c_int64),
        # and until when the last of them may go on.
        ("last_deadline", ctypes.c_double),
        # Written by the master: when it last saw that this worker's jobs were given to others.
        ("lost_at", ctypes.c_double),
    )

    def begin(self, job_id: bytes, task: bytes, *, started: float, soft_deadline: float, hard_deadline: float) -> None:
        """Enter a job; for the worker."""
        self.sequence += 1
        self.job_id = job_id[:TEXT_BYTES]
        self.task = task[:TEXT_BYTES]
        self.started = started
        self.soft_deadline = soft_deadline
        self.hard_deadline = hard_deadline
        self.sequence += 1
        self.state = WorkerState.BUSY

    @property
    def is_certain(self) -> bool:
        """True when a crash now is the current job's doing, and not one of its neighbours'."""
        return bool(self.jobs <= 1 or self.at_work)

    def lease_left(self, since: float) -> float:
        """Seconds until another host may run a job that this worker has had since then; negative = it may already."""
        now = time.monotonic()
        return float(self.lost_at - now if since <= self.lost_at else self.lease_until - now)

    def jobs_ended(self) -> int:
        """Jobs that this worker has ended in any way."""
        return int(self.succeeded + self.retried + self.buried + self.crashed)

    def end(self) -> None:
        """Leave the job; for the worker."""
        self.sequence += 1
        self.started = 0.0
        self.sequence += 1

    def current_job(self) -> CurrentJob | None:
        """The job the worker is in; None between jobs, or when it died while writing this."""
        for _ in range(3):
            before = self.sequence
            job = CurrentJob(
                bytes(self.job_id).decode("utf-8", "replace"),
                bytes(self.task).decode("utf-8", "replace"),
                self.started,
                self.soft_deadline,
                self.hard_deadline,
            )
            if before % 2 == 0 and self.sequence == before:
                return job if job.started else None
        return None

    def clear(self) -> None:
        """Make the slot as new; for the master, when no process uses it."""
        ctypes.memset(ctypes.addressof(self), 0, ctypes.sizeof(self))


#: Bytes from one slot to the next: whole cache lines, so that workers don't disturb each other.
STRIDE = -(-ctypes.sizeof(Slot) // 64) * 64


def slot_at(memory: mmap, index: int) -> Slot:
    """The slot with this index, as a view of the shared memory."""
    return Slot.from_buffer(memory, index * STRIDE)
