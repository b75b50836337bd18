"""What a handler can ask about the job it runs in: `current_job()`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any

import msgspec

from rqsup.errors import NoCurrentJob


class JobContext(msgspec.Struct, frozen=True):
    """The running attempt, as its handler sees it."""

    #: The job's id: use it as an idempotency key, because an attempt may run again after a crash.
    id: str
    task: str
    queue: str
    #: Number of this attempt, from 1. Handing a job back (deploy, host loss) does not count.
    attempt: int
    #: Raised with each claim; what you store with it can be told from a later attempt's.
    token: int
    #: Name of the worker that runs it.
    worker: str
    #: Generation of the code that it runs: each reload raises it.
    generation: int
    _make_log: Callable[[], Any]
    _lease_left: Callable[[], float]
    _stopping: Callable[[], bool]

    @property
    def log(self) -> Any:
        """A structlog logger bound to the job's id, task, queue and attempt."""
        return self._make_log()

    @property
    def lease_left_s(self) -> float:
        """Seconds until another host may run this job too; the master renews it, negative = lost."""
        return self._lease_left()

    @property
    def lease_lost(self) -> bool:
        """True when the job may already run elsewhere: stop, and leave no side effect."""
        return self._lease_left() <= 0

    @property
    def stopping(self) -> bool:
        """True when this worker was told to finish: long jobs may save their state and return."""
        return self._stopping()


_current: ContextVar[JobContext] = ContextVar("rqsup_current_job")


def current_job() -> JobContext:
    """The job that the caller runs in.

    Raises:
        NoCurrentJob: called outside a job.
    """
    try:
        return _current.get()
    except LookupError:
        raise NoCurrentJob("current_job() was called outside a job; call it from a task's handler") from None


def enter(context: JobContext) -> Token[JobContext]:
    """Make this the current job; for the worker."""
    return _current.set(context)


def leave(token: Token[JobContext]) -> None:
    """End what `enter` began; for the worker."""
    _current.reset(token)
