"""Where a worker is: its own stacks, or those of the process in which it runs an isolated job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rqsup.supervisor.blackbox import BlackBox
from rqsup.supervisor.child import Child


async def ask_where(child: Child, box: BlackBox) -> str:
    """The stacks that matter; empty when nobody answers. The processes go on."""
    with _job_process(child) as pidfd:
        # A worker with an isolated job only waits for it; but it answers where the job's process cannot.
        text = await box.ask(pidfd) if pidfd >= 0 else ""
    return text or await box.ask(child.pidfd)


@contextlib.contextmanager
def _job_process(child: Child) -> Iterator[int]:
    """The process of the isolated job under way; -1 = there is none."""
    pid = child.slot.job_group
    try:
        pidfd = os.pidfd_open(pid) if pid > 1 else -1
    except OSError:
        # It has just ended.
        pidfd = -1
    try:
        # The worker reaps it, so the number may be another's by now; a signal must not reach that one.
        yield pidfd if pidfd >= 0 and _parent(pid) == child.pid else -1
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _parent(pid: int) -> int:
    """The parent's pid: field 4 of /proc/PID/stat (proc(5)); 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - one small read
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0
