"""What a job is: its states, its priority levels, and the record read from Redis."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Protocol


class JobState(enum.StrEnum):
    """Where a job stands. Each state has exactly one place in Redis (docs/job-states.md)."""

    READY = "ready"
    SCHEDULED = "scheduled"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


#: States in which a job can still run by itself.
OPEN_STATES = frozenset({JobState.READY, JobState.SCHEDULED, JobState.ACTIVE})
#: States whose record is kept for a time and then expires.
FINISHED_STATES = frozenset({JobState.SUCCEEDED, JobState.CANCELLED})
#: States in which nothing more happens unless an operator acts.
ENDED_STATES = FINISHED_STATES | {JobState.DEAD}

#: Every arrow of the diagram in docs/job-states.md, with its label; a test compares the two.
TRANSITIONS: dict[tuple[JobState | None, JobState], str] = {
    (None, JobState.READY): "enqueue",
    (None, JobState.SCHEDULED): "enqueue later",
    (JobState.SCHEDULED, JobState.READY): "promote",
    (JobState.READY, JobState.ACTIVE): "claim",
    (JobState.ACTIVE, JobState.SUCCEEDED): "succeed",
    (JobState.ACTIVE, JobState.SCHEDULED): "retry",
    (JobState.ACTIVE, JobState.READY): "recover",
    (JobState.ACTIVE, JobState.DEAD): "bury",
    (JobState.READY, JobState.CANCELLED): "cancel",
    (JobState.SCHEDULED, JobState.CANCELLED): "cancel",
    (JobState.DEAD, JobState.READY): "replay",
}


class Level(enum.IntEnum):
    """Priority of a job inside its queue; a higher level is always taken first."""

    VERY_LOW = 1
    LOW = 2
    NORMAL = 3
    HIGH = 4
    VERY_HIGH = 5
    CRITICAL = 6

    @property
    def label(self) -> str:
        """The level's name in keys, configuration and envelopes, for example `high`."""
        return self.name.lower()

    @classmethod
    def parse(cls, value: str | int | Level) -> Level:
        """Read a level from its name or number.

        Raises:
            ValueError: no level has this name or number.

        >>> Level.parse("high") is Level.HIGH
        True
        """
        if isinstance(value, str):
            for level in cls:
                if level.label == value:
                    return level
            raise ValueError(f"unknown priority {value!r}; choose one of {', '.join(LEVEL_LABELS)}")
        return cls(value)


#: Names of all levels, highest first.
LEVEL_LABELS = tuple(level.label for level in sorted(Level, reverse=True))


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job as Redis holds it at one moment. Times are ms since the epoch, by the server's clock."""

    id: str
    state: JobState
    task: str | None
    queue: str
    level: str
    envelope: bytes
    token: int
    errors: int
    crashes: int
    returns: int
    worker: str | None
    enqueued_at: int | None
    due_at: int | None
    started_at: int | None
    finished_at: int | None
    dead_at: int | None
    result: bytes | None
    error: dict[str, Any] | None
    reason: str | None
    crash: dict[str, Any] | None
    returned: dict[str, Any] | None
    #: Generation of the code that ran it last; None before its first attempt.
    generation: int | None = None

    @property
    def attempts(self) -> int:
        """Attempts that ended or run now; a job handed back by a deploy is not charged for it."""
        return self.errors + self.crashes + (self.state in {JobState.ACTIVE, JobState.SUCCEEDED})


class JobSource(Protocol):
    """What a `Job` asks; a `Client` answers."""

    def record(self, job_id: str) -> JobRecord:
        """What Redis holds of a job now."""
        ...

    def result(self, job_id: str, timeout: float | None = None) -> Any:
        """Wait for a job's end."""
        ...

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not started."""
        ...


@dataclass(slots=True)
class Job:
    """A job as its sender sees it; `record` is what `refresh()` read last."""

    id: str
    client: JobSource
    record: JobRecord | None = None

    @property
    def state(self) -> JobState | None:
        """State at the last refresh, or None when it was never read."""
        return self.record.state if self.record else None

    def refresh(self) -> Job:
        """Read the job again and return it.

        Raises:
            JobNotFound: no job has this id, or its record has expired.
        """
        self.record = self.client.record(self.id)
        return self

    def result(self, timeout: float | None = None) -> Any:
        """Wait until the job has ended and return what its handler returned.

        Args:
            timeout: longest wait in seconds; None waits for ever.

        Raises:
            ResultTimeout: it did not end in time.
            JobFailed: it is dead or was cancelled; the message holds the reason.
            JobNotFound: its record is not kept (any more).
        """
        return self.client.result(self.id, timeout=timeout)

    def cancel(self) -> None:
        """Cancel the job, if it has not started.

        Raises:
            JobNotCancellable: it has started or ended.
            JobNotFound: no job has this id.
        """
        self.client.cancel(self.id)
