"""How long an idle worker may stand still. Pure: judged by the master's clock and by what it sees.

A worker without a job turns its loop at least once per blocking command. One that does not is stopped or
wedged: nobody would notice, since it has no job whose deadline could pass, and each job handed to it waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from rqsup.settings import Settings

#: What changes with each turn of a worker's loop; None while the worker owes no turn.
Mark = tuple[float, int]


@dataclass(slots=True)
class Stillness:
    """Since when a worker without a job has stood still, as far as the master has seen.

    >>> stillness = Stillness()
    >>> stillness.observe((1.0, 2), now=10.0); stillness.work_waits(now=12.0)
    >>> (stillness.since, stillness.work_since)
    (10.0, 12.0)
    >>> stillness.observe((1.1, 2), now=13.0)
    >>> (stillness.since, stillness.work_since)
    (13.0, None)
    """

    since: float = 0.0
    #: Since when jobs lie in its lists and it does not take them.
    work_since: float | None = None
    _mark: Mark | None = None

    def observe(self, mark: Mark | None, now: float) -> None:
        """Take in what can be seen of the worker's loop."""
        if mark is None or mark != self._mark:
            self._mark, self.since, self.work_since = mark, now, None

    def work_waits(self, now: float) -> None:
        """A job lies in the worker's lists."""
        if self.work_since is None:
            self.work_since = now


@dataclass(frozen=True, slots=True)
class Patience:
    """How long stillness is endured, seconds."""

    #: The longest turn of a healthy loop, its grace included: nothing comes, or Redis is slow.
    longest_s: float
    #: While work waits for this very worker.
    grace_s: float

    @classmethod
    def of(cls, settings: Settings) -> Patience:
        """The patience that these settings ask for."""
        workers, redis = settings.workers, settings.redis
        # One turn may block, then lose its connection, pause, connect, and settle and claim anew.
        turn_s = workers.block_timeout + workers.reconnect_cap + redis.connect_timeout + 3 * redis.socket_timeout
        return cls(turn_s + workers.idle_grace, workers.idle_grace)

    def deadline(self, stillness: Stillness) -> float:
        """When a worker that stays still has to be replaced."""
        latest = stillness.since + self.longest_s
        return latest if stillness.work_since is None else min(latest, stillness.work_since + self.grace_s)
