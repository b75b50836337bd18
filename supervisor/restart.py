"""When to start a worker again that never became ready: exponential backoff with jitter. Pure but for its memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Restart:
    """The pool's memory of failed starts.

    A worker that was ready once and dies is replaced at once; only failed starts slow the pool down,
    so a broken deploy cannot melt the machine. It never gives up: the pool is degraded until a worker
    becomes ready, and heals by itself.
    """

    pause_s: float
    cap_s: float
    failures: int = 0
    not_before: float = 0.0
    reason: str = ""

    def failed(self, now: float, luck: float, reason: str) -> float:
        """Note a failed start; returns the pause in seconds.

        Args:
            luck: a random number in [0, 1).
        """
        self.failures += 1
        ceiling = min(self.cap_s, self.pause_s * 2.0 ** min(self.failures - 1, 30))
        pause = ceiling * (0.5 + luck / 2)
        self.not_before = max(self.not_before, now + pause)
        self.reason = reason
        return pause

    def succeeded(self) -> None:
        """A worker became ready: the pool is well."""
        self.failures, self.not_before, self.reason = 0, 0.0, ""
