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
        """Note a failed start; returns the pause from now on, in seconds.

        Starts that fail together count as one: a pool of a hundred would else be at the longest pause at once.

        Args:
            luck: a random number in [0, 1).
        """
        self.reason = reason
        if now >= self.not_before:
            self.failures += 1
            ceiling = min(self.cap_s, self.pause_s * 2.0 ** min(self.failures, 30))
            # Full jitter, but never less than the first pause: many pools of one broken deploy spread out.
            self.not_before = now + self.pause_s + luck * max(0.0, ceiling - self.pause_s)
        return self.not_before - now

    def succeeded(self) -> None:
        """A worker became ready: the pool is well."""
        self.failures, self.not_before, self.reason = 0, 0.0, ""
