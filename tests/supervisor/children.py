"""Children for tests of what the master does with them, without processes."""

from __future__ import annotations

import os
import socket
import time
from mmap import mmap

from rqsup.supervisor.child import Child
from rqsup.supervisor.plan import Phase
from rqsup.workers.assignment import Assignment
from rqsup.workers.slot import STRIDE, slot_at


def make_child(worker: str = "host.1.1", *, number: int = 1, phase: Phase = Phase.READY, generation: int = 1) -> Child:
    """A child with a slot of its own; its process is this one."""
    mine, _ = socket.socketpair()
    return Child(
        assignment=Assignment(number, worker, 0, generation, os.getpid()), slot=slot_at(mmap(-1, STRIDE), 0), channel=mine,
        forked_at=time.monotonic(), phase=phase, pid=os.getpid(), was_ready=phase is Phase.READY,
    )  # fmt: skip


def enter_job(
    child: Child, job_id: str = "job-1", *, started: float = 100.0, soft_s: float = 10, grace_s: float = 5
) -> None:
    """Put a child into a job."""
    soft = started + soft_s
    child.slot.begin(job_id.encode(), b"mail.send", started=started, soft_deadline=soft, hard_deadline=soft + grace_s)
