"""Marks of jobs in one file mapped into every process: what ran, how often, when, and where.

A mark is one or two stores into shared memory: it costs a peer neither a Redis command nor a lock, and it proves that a job
ran. All times are of the monotonic clock, which is the same in every process of a machine. Only the standard library is
used: this file is also copied into the environments of the peers.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from time import monotonic
from typing import NamedTuple

#: Bytes of one job: sent, first start, last start (doubles), process (uint32), runs and ends (bytes), padding.
STRIDE = 32
_TIME = struct.Struct("<d")
_LAST = struct.Struct("<dIB")
_ROW = struct.Struct("<dddIBB2x")


class Mark(NamedTuple):
    """What is known of one job; 0 = not yet."""

    sent: float
    first: float
    last: float
    pid: int
    runs: int
    ends: int


class Marks:
    """The marks of jobs 0 to `slots` - 1. One writer per job at a time; readers see what is there."""

    def __init__(self, path: str | Path, slots: int | None = None) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if slots is not None:
                os.ftruncate(descriptor, slots * STRIDE)
            self.slots = os.fstat(descriptor).st_size // STRIDE
            self._memory = mmap.mmap(descriptor, self.slots * STRIDE)
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Forget everything."""
        self._memory[:] = bytes(len(self._memory))

    def sent(self, job: int) -> None:
        """Note that a job is about to be sent."""
        _TIME.pack_into(self._memory, job * STRIDE, monotonic())

    def start(self, job: int) -> None:
        """Note that a job starts in this process."""
        at, memory, now = job * STRIDE, self._memory, monotonic()
        runs = memory[at + 28]
        if not runs:
            _TIME.pack_into(memory, at + 8, now)
        _LAST.pack_into(memory, at + 16, now, os.getpid(), min(runs + 1, 255))

    def done(self, job: int) -> None:
        """Note that a job came to its end."""
        at = job * STRIDE + 29
        self._memory[at] = min(self._memory[at] + 1, 255)

    def rows(self, jobs: int, first: int = 0) -> list[Mark]:
        """The marks of so many jobs."""
        start = first * STRIDE
        return [Mark(*row) for row in _ROW.iter_unpack(self._memory[start : start + jobs * STRIDE])]

    def ran(self, jobs: int, first: int = 0) -> int:
        """How many of these jobs have started."""
        return jobs - self._memory[first * STRIDE + 28 : (first + jobs) * STRIDE : STRIDE].count(0)

    def ended(self, jobs: int) -> int:
        """How many of the first jobs came to their end."""
        return jobs - self._memory[29 : jobs * STRIDE : STRIDE].count(0)

    def last_ran(self, job: int) -> bool:
        """True when this job has started: cheap to ask often."""
        return bool(self._memory[job * STRIDE + 28])
