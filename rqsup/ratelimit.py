"""A token bucket: at most `burst + rate * t` in any window of t seconds, wherever the window begins."""

from __future__ import annotations

import time
from collections.abc import Callable

#: At high rates tokens are gathered for this long, seconds, so that each round trip carries many.
GATHER_S = 0.01
#: Added to each pause, seconds: rounding must not make it end just before its token is there.
ROUNDING_S = 1e-6


class TokenBucket:
    """Lets through `rate` per second, and up to `burst` at once after a quiet time.

    It never sleeps: `take` gives what is there, `pause_s` says how long to wait for more. A counter
    per second would let through twice its limit around the second's edge; a bucket has no edges.
    """

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"a token bucket needs a rate above 0 and a burst of 1 or more, not {rate} and {burst}")
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    def take(self, most: int) -> int:
        """Take as many of `most` tokens as are there now: 0 to `most`."""
        self._fill()
        granted = min(most, int(self._tokens))
        self._tokens -= granted
        return granted

    def pause_s(self) -> float:
        """Seconds until a token is there, or as many as come in while waiting is still unnoticeable."""
        self._fill()
        wanted = min(self._burst, max(1.0, self._rate * GATHER_S))
        if self._tokens >= wanted:
            return 0.0
        return (wanted - self._tokens) / self._rate + ROUNDING_S

    def _fill(self) -> None:
        now = self._clock()
        earned = max(0.0, now - self._filled_at) * self._rate
        self._tokens = min(float(self._burst), self._tokens + earned)
        self._filled_at = now
