"""What is owed to a dead worker's jobs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Debt:
    """Jobs that have to go back to their queues."""

    worker: str
    number: int
    pid: int
    cause: str
    charged_job: str
    seen_at: float
    #: The job that an operator had killed; empty = none.
    condemned: str = ""
    #: The beat that a reaper judged by; empty when the death was seen.
    beat: str = ""
    reaped: bool = False
    #: Where the dead worker's threads were; kept with the charged job.
    stack: str = ""
    #: Each job that it had begun may have caused its death.
    suspects: bool = False
    tried: list[int] = field(default_factory=list)
