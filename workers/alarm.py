"""The one timer of a worker: raises JobTimeout in a job that is over time, and keeps the title's age true.

SIGALRM runs between two steps of the interpreter, in the job's own thread, so it stops Python code
but not C code that does not return; the master's hard timeout ends that. Short jobs never see it.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

from rqsup.errors import JobTimeout
from rqsup.workers.title import describe_job, set_title

#: Seconds after which a running job shows in the title, and between two updates of its age.
TITLE_S = 1.0


class Alarm:
    """Watches one job at a time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._who = f"worker {number}"
        self._armed = False
        self._timeout_s = 0.0
        self._postponed_s = 0.0
        self._started = 0.0
        self._label = ("", "")
        self._state = ""

    def install(self) -> None:
        """Take over SIGALRM. System calls of a job are restarted, not broken off, by a title update."""
        signal.signal(signal.SIGALRM, self._ring)
        signal.siginterrupt(signal.SIGALRM, False)

    def arm(self, task: str, job_id: str, timeout_s: float) -> None:
        """Begin to watch a job that may run for so many seconds."""
        if signal.getsignal(signal.SIGALRM) != self._ring:
            # The job before took the signal for itself; this one shall be ended in time all the same.
            self.install()
        self.show("busy")
        self._label = (task, job_id)
        self._started = time.monotonic()
        self._timeout_s = timeout_s
        self._postponed_s = 0.0
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, min(TITLE_S, timeout_s))

    def postpone(self, seconds: float) -> None:
        """Leave the job so much more time: it was told to end in a gentler way, and cleans up."""
        self._postponed_s = seconds

    def disarm(self) -> None:
        """The job has ended. A JobTimeout may still come out of this very call, so call it twice."""
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def become(self, who: str) -> None:
        """Speak for another process from now on: one that was forked for a job. Short ones keep the old title."""
        self._who, self._state = who, "busy"

    def show(self, state: str) -> None:
        """Set the title to a state; costs nothing when it says so already."""
        if state != self._state:
            set_title(f"{self._who} [{state}]")
            self._state = state

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._armed:
            return
        age_s = time.monotonic() - self._started
        left_s = self._timeout_s + self._postponed_s - age_s
        if left_s <= 0:
            # Ring again: a handler that swallows the first JobTimeout meets the next, then the hard timeout.
            signal.setitimer(signal.ITIMER_REAL, TITLE_S)
            raise JobTimeout(f"ran {age_s:.1f} s, allowed are {self._timeout_s:g} s")
        self.show(describe_job(*self._label, age_s))
        signal.setitimer(signal.ITIMER_REAL, min(TITLE_S, left_s))
