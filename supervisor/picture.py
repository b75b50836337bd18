"""Makes the snapshot: one consistent picture of the master and its workers."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

from rqsup.supervisor.child import Child
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.snapshot import WorkerView

#: Seconds for which a worker's memory is not read again: reading it walks the process's page tables.
MEMORY_FRESH_S = 2.0


class MemoryMeter:
    """Private memory (USS) of the workers, read when somebody looks, and not more often than needed."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, int]] = {}

    def read(self, pid: int) -> int:
        """USS in bytes; 0 when it cannot be read (yet, or any more)."""
        now = time.monotonic()
        known = self._known.get(pid)
        if known and now - known[0] < MEMORY_FRESH_S:
            return known[1]
        try:
            size = int(psutil.Process(pid).memory_full_info().uss) if pid else 0
        except (psutil.Error, OSError):
            size = 0
        self._known[pid] = (now, size)
        return size

    def forget(self, living: Iterable[int]) -> None:
        """Drop what was read of processes that are gone."""
        self._known = {pid: self._known[pid] for pid in living if pid in self._known}


def view_worker(child: Child, meter: MemoryMeter) -> WorkerView:
    """One worker at this moment."""
    now = time.monotonic()
    job = child.slot.current_job()
    return WorkerView(
        number=child.number,
        id=child.worker,
        pid=child.pid,
        generation=child.assignment.generation,
        state=child.state(),
        task=job.task if job else None,
        job_id=job.id if job else None,
        job_age_s=round(now - job.started, 3) if job else None,
        age_s=round(now - child.forked_at, 3),
        memory_bytes=meter.read(child.pid),
        succeeded=child.slot.succeeded,
        retried=child.slot.retried,
        buried=child.slot.buried,
        jobs=max(int(child.slot.jobs), int(job is not None)),
    )


def count_ready(children: Iterable[Child]) -> int:
    """Workers that can take jobs."""
    return sum(child.phase is Phase.READY for child in children)


def count_busy(children: Iterable[Child]) -> int:
    """Workers inside a job, leaving ones included."""
    return sum(child.slot.current_job() is not None for child in children)
