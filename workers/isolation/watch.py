"""What a worker does for the process of its isolated job while that runs, and what it knows of its death."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from rqsup.workers import blackbox
from rqsup.workers.alarm import Alarm
from rqsup.workers.endings import describe_signal
from rqsup.workers.isolation.fork import Observer
from rqsup.workers.oom import MACHINE, count_in, find_counter
from rqsup.workers.slot import Order, Slot
from rqsup.workers.title import describe_job

#: Most bytes of a counter's file; the machine's has some 5,000.
COUNTER_BYTES = 1 << 15
#: Seconds after which a job shows in its worker's title.
TITLE_S = 1.0


class Watch(Observer):
    """For one worker. `mirror` is what the job's process sees of the worker's slot."""

    def __init__(self, slot: Slot, mirror: Slot, alarm: Alarm, box: int) -> None:
        self._slot = slot
        self._mirror = mirror
        self._alarm = alarm
        self._box = box
        self._label = ("", "")
        self._started = 0.0
        self._told = False
        try:
            #: Kept open: opening it takes longer than reading it.
            self._counter = os.open(find_counter(os.getpid()) or MACHINE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # Then a kill for lack of memory cannot be told from another.
            self._counter = -1
        self._before = b""

    def begin(self, task: str, job_id: str, started: float) -> None:
        """Another job."""
        self._label, self._started, self._told = (task, job_id), started, False
        self._reflect()

    def started(self, pid: int) -> None:
        """Tell the master, which has to end the group if this worker dies."""
        self._slot.job_group = pid
        if pid:
            # After the fork, while the process works: so nobody waits for it.
            self._before = self._read_counter()

    def tick(self, pidfd: int) -> None:
        """Pass the master's orders on, and show the job's age."""
        self._reflect()
        if self._slot.order == Order.ABANDON and not self._told:
            # Once: a second one would break off the cleanup after the first.
            self._told = True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        age_s = time.monotonic() - self._started
        if age_s >= TITLE_S:
            self._alarm.show(describe_job(*self._label, age_s))

    def overdue(self, pidfd: int) -> str:
        """Ask where it hangs, as the master does before it kills a worker."""
        return blackbox.ask(self._box, pidfd)

    def explain(self, number: int, peak_bytes: int) -> str:
        """Tell an OOM kill from somebody's `kill -9`."""
        before, after = (count_in(text.decode()) for text in (self._before, self._read_counter()))
        oom = None if before is None or after is None else after > before
        return describe_signal(number, oom=oom, peak_bytes=peak_bytes)

    def last_words(self) -> str:
        """Take them out of the box: they must not be taken for the worker's own later."""
        text = blackbox.last_words(blackbox.read(self._box))
        blackbox.empty(self._box)
        return text

    def _read_counter(self) -> bytes:
        try:
            return os.pread(self._counter, COUNTER_BYTES, 0)
        except OSError:
            return b""

    def _reflect(self) -> None:
        self._mirror.order = self._slot.order
        self._mirror.lease_until = self._slot.lease_until
