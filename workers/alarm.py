"""What interrupts a job: JobTimeout when it is over time, JobShutdown when its worker has to end.

The handlers run between two steps of the interpreter, in the job's own thread, so they stop Python
code but not C code that does not return; the master's kill ends that. The timer also keeps the age in
the title true. Short jobs never see it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from rqsup.errors import JobShutdown, JobTimeout
from rqsup.workers.title import describe_job, set_title

#: Seconds after which a running job shows in the title, and between two updates of its age.
TITLE_S = 1.0
#: Seconds until an errand that could not be done is tried again, at least.
ERRAND_AGAIN_S = 0.005
#: Seconds between two looks whether a job took the signals for itself.
CHECK_S = 0.05


class Alarm:
    """Watches one job at a time. `name` begins the title; `abandoned` tells whether the master ordered to give it up."""

    def __init__(self, name: str, abandoned: Callable[[], bool]) -> None:
        self.name = name
        self._abandoned = abandoned
        self._pid = os.getpid()
        #: Called once a second while a job runs; may raise what has to end it.
        self.reminder: Callable[[], None] | None = None
        self._errand: Callable[[], bool] | None = None
        self._errand_s = 0.0
        self._armed = False
        #: When the timer ends; it goes on between tiny jobs, which so need no system call.
        self._rings_at = 0.0
        #: True once it has raised a JobTimeout, whatever the job made of it.
        self.has_raised = False
        self._timeout_s = 0.0
        self._postponed_s = 0.0
        self._started = 0.0
        self._checked = 0.0
        self._label = ("", "")
        self._state = ""

    def install(self) -> None:
        """Take over two signals. System calls of a job are restarted, not broken off, by a title update."""
        for number, handler in ((signal.SIGALRM, self._ring), (signal.SIGTERM, self._told)):
            signal.signal(number, handler)
            signal.siginterrupt(number, False)

    def arm(self, task: str, job_id: str, timeout_s: float) -> None:
        """Begin to watch a job that may run for so many seconds."""
        self.check_handlers()
        self.show("busy")
        self._label = (task, job_id)
        self._started = time.monotonic()
        self._timeout_s = timeout_s
        self._postponed_s = 0.0
        self._armed = True
        pause_s = min(TITLE_S if self._errand is None else self._errand_s, timeout_s)
        # Also when it would ring soon: that would break in on a job that is about to end.
        if not pause_s / 2 <= self._rings_at - self._started <= pause_s:
            self._tick(pause_s)

    def entrust(self, errand: Callable[[], bool] | None, after_s: float = 0.0) -> None:
        """Have something done in the midst of the next job, if that runs for so many seconds; None = nothing.

        It must neither wait nor raise, and answers whether it is done: else it is called again.
        """
        self._errand, self._errand_s = errand, after_s

    def run_errand(self) -> None:
        """Do it now: the job will surely not be tiny."""
        errand, self._errand = self._errand, None
        # A process that the job forked has the handlers, too, and may ring by a timer of its own: the errand is not its.
        if errand is not None and os.getpid() == self._pid and not errand():
            self._errand = errand

    def postpone(self, seconds: float) -> None:
        """Leave the job so much more time: it was told to end in a gentler way, and cleans up."""
        self._postponed_s = seconds

    def disarm(self) -> None:
        """The job has ended. A JobTimeout may still come out of this very call, so call it twice."""
        self._armed = False

    def become(self, name: str, abandoned: Callable[[], bool]) -> None:
        """Speak for another process from now on: one that was forked for a job. Short ones keep the old title."""
        self.name, self._state, self._abandoned = name, "busy", abandoned
        self._errand = None
        # The handlers are inherited, and were checked before the fork.
        self._checked = time.monotonic()
        # A timer is not inherited.
        self._rings_at = 0.0

    def show(self, state: str) -> None:
        """Set the title to a state; costs nothing when it says so already."""
        if state != self._state:
            set_title(f"{self.name}, {state}")
            self._state = state

    def _told(self, _signal: int, _frame: FrameType | None) -> None:
        # Anybody can send SIGTERM, to a whole group even: only the master's order in the slot gives it a meaning.
        if self._armed and self._abandoned():
            raise JobShutdown("this worker has to end now; the job goes back to its queue")

    def check_handlers(self) -> None:
        """Take the signals back from a job that took them for itself: the next one shall end in time all the same."""
        now = time.monotonic()
        # Not before each tiny job, because Python's getsignal takes as long as one. The master's limit holds anyway.
        if now - self._checked >= CHECK_S:
            self._checked = now
            if signal.getsignal(signal.SIGALRM) != self._ring or signal.getsignal(signal.SIGTERM) != self._told:
                self.install()
                self._rings_at = 0.0

    def _tick(self, seconds: float) -> None:
        self._rings_at = time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if not self._armed:
            self._rings_at = 0.0
            return
        age_s = time.monotonic() - self._started
        left_s = self._timeout_s + self._postponed_s - age_s
        if left_s <= 0:
            # Ring again: a handler that swallows the first JobTimeout meets the next, then the hard timeout.
            self._tick(TITLE_S)
            self.has_raised = True
            raise JobTimeout(f"ran {age_s:.1f} s, allowed are {self._timeout_s:g} s")
        if self._errand is not None and age_s < self._errand_s:
            self._tick(min(self._errand_s - age_s, left_s))
            return
        # Before the errand, which another signal may break off: without a timer nothing would end this job.
        self._tick(min(TITLE_S, left_s))
        self.run_errand()
        if self._errand is not None:
            # Later and later: each ring breaks off a system call of the job.
            self._tick(min(TITLE_S, left_s, max(ERRAND_AGAIN_S, age_s / 2)))
        if age_s >= TITLE_S / 2:
            self.show(describe_job(*self._label, age_s))
        if self.reminder is not None:
            self.reminder()
