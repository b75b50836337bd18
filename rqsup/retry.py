"""When a failed attempt runs again: exponential backoff with jitter and a cap. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays `first_s`, 2 × first, 4 × first … up to `cap_s`, each shortened by up to `jitter`.

    Jitter only shortens: so a delay never exceeds what the documentation promises, while jobs that
    failed together still come back apart.

    >>> [Backoff(jitter=0).delay_s(failures, 0.0) for failures in (1, 2, 3, 4, 5)]
    [2.0, 4.0, 8.0, 16.0, 32.0]
    >>> Backoff(cap_s=10, jitter=0).delay_s(30, 0.0)
    10.0
    """

    first_s: float = 2.0
    cap_s: float = 600.0
    jitter: float = 0.2

    def delay_s(self, failures: int, luck: float) -> float:
        """Seconds to wait after the given number of failures (1 or more).

        Args:
            failures: failed attempts so far.
            luck: a random number in [0, 1); passed in so that the function stays pure.
        """
        # Bounded exponent: 2 ** 5000 would raise OverflowError for a job replayed for years.
        delay = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 60))
        return delay * (1.0 - self.jitter * luck)
