"""Measures the turns of the master's loop: from the moment it wakes until it waits again.

A turn that takes long is one in which nobody is supervised. Measured around the selector, the loop's only
way to wait, so that nothing in a turn escapes; it costs two looks at the clock per turn.
"""

from __future__ import annotations

import math
import selectors
import time

from rqsup.logs import get_logger

#: So long, seconds, a turn is worth a warning.
SLOW_S = 0.05

Woken = list[tuple[selectors.SelectorKey, int]]


class TurnClock(selectors.DefaultSelector):
    """A selector that knows how long its loop takes between two waits, and tells of each slow turn in the log."""

    def __init__(self) -> None:
        super().__init__()
        #: Turns so far, the longest of them in seconds, and how many took `SLOW_S` or longer.
        self.turns = 0
        self.longest_s = 0.0
        self.slow = 0
        self._log = get_logger("master")
        self._woke_at = math.inf
        self._cpu_s = 0.0

    def select(self, timeout: float | None = None) -> Woken:
        """Wait as the loop asks, and take the time of the turn that ends here."""
        turn_s = time.monotonic() - self._woke_at
        self.turns += 1
        self.longest_s = max(self.longest_s, turn_s)
        if turn_s >= SLOW_S:
            self.slow += 1
            # With little time on the CPU it was the machine, or somebody who stopped this process.
            cpu_s = round(time.thread_time() - self._cpu_s, 3)
            self._log.warning("one turn of the master's loop took long", seconds=round(turn_s, 3), cpu_s=cpu_s)
        try:
            return super().select(timeout)
        finally:
            self._woke_at, self._cpu_s = time.monotonic(), time.thread_time()
