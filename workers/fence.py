"""Resource limits around one job: set before it, lifted after it. Only tasks with limits come here."""

from __future__ import annotations

import math
import resource
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from rqsup.errors import CpuLimit
from rqsup.limits import Limits

#: Kernel limits that are simply set to a task's value.
PLAIN = (("data", resource.RLIMIT_DATA), ("nofile", resource.RLIMIT_NOFILE), ("fsize", resource.RLIMIT_FSIZE))
Handler = Callable[[int, FrameType | None], Any] | int | None


class Fence:
    """Soft limits of this process for one job; the hard ones stay, so that the soft ones can be lifted.

    Processor time is counted from now on. At its end the kernel sends SIGXCPU, and again
    each second: a handler that swallows the first CpuLimit meets the next.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._before: list[tuple[int, tuple[int, int]]] = []
        self._handler: Handler = signal.SIG_DFL
        self._armed = False
        self._exceeded = False

    def close(self) -> None:
        """Set the limits."""
        self._armed = True
        if self._limits.cpu is not None:
            self._handler = signal.signal(signal.SIGXCPU, self._ring)
            # The kernel counts whole seconds, and by ticks: a job gets its time, give or take a second.
            self._set(resource.RLIMIT_CPU, math.ceil(time.process_time() + self._limits.cpu))
        for name, kind in PLAIN:
            value = getattr(self._limits, name)
            if value is not None:
                self._set(kind, value)

    def open(self) -> None:
        """Lift the limits. A CpuLimit may still come out of this very call, so call it twice."""
        self._armed = False
        while self._before:
            kind, (soft, _) = self._before[-1]
            # The hard limit as it is now: a job may have lowered it, and nobody can raise it again.
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (_lower(soft, hard), hard))
            self._before.pop()
        if self._limits.cpu is not None:
            signal.signal(signal.SIGXCPU, self._handler)

    def _set(self, kind: int, value: int) -> None:
        before = resource.getrlimit(kind)
        self._before.append((kind, before))
        resource.setrlimit(kind, (_lower(value, before[1]), before[1]))

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        self._exceeded = True
        self.remind()

    def remind(self) -> None:
        """Raise CpuLimit again, in a job that swallowed the first: the kernel tells no job that only waits by now.

        asyncio swallows any exception that comes out of its own code, and leaves the coroutine standing.
        """
        if self._armed and self._exceeded:
            raise CpuLimit(f"used more than {self._limits.cpu} s of processor time")


def _lower(one: int, other: int) -> int:
    """The stricter of two limits; RLIM_INFINITY is -1."""
    finite = [limit for limit in (one, other) if limit != resource.RLIM_INFINITY]
    return min(finite) if finite else resource.RLIM_INFINITY
