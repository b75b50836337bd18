"""Notices that the master itself stood still, and pardons what came to be late meanwhile. Pure but for its memory."""

from __future__ import annotations

from dataclasses import dataclass

#: So late, seconds, a wake-up means that this process was stopped or starved, and so could not see its workers' progress.
STALL_S = 2.0


@dataclass(slots=True)
class Stall:
    """While a pardon lasts, nobody is killed for lateness.

    >>> stall = Stall(awake_at=100.0)
    >>> stall.woke(101.5, due_s=1.0), stall.pardon_until
    (0.0, 0.0)
    >>> stall.woke(112.5, due_s=1.0), stall.pardon_until
    (10.0, 122.5)
    """

    #: When the loop was last known to turn, CLOCK_MONOTONIC.
    awake_at: float
    #: No kill for lateness before this time.
    pardon_until: float = 0.0

    def woke(self, now: float, due_s: float) -> float:
        """Take in that the loop turns now; returns by how many seconds it stood still, 0 for nothing to speak of.

        Args:
            due_s: longest time between two calls while all is well.
        """
        late_s = now - self.awake_at - due_s
        self.awake_at = now
        if late_s <= STALL_S:
            return 0.0
        # As long again: so much of their time did the workers lose, if they stood still, too.
        self.pardon_until = max(self.pardon_until, now + late_s)
        return late_s
