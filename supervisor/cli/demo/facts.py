"""What the demo shows at one moment, read from Redis and the master."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from rqsup.client import Client
from rqsup.envelope import decode
from rqsup.errors import EnvelopeError
from rqsup.producer import Progress
from rqsup.store.keys import lanes
from rqsup.supervisor.snapshot import Snapshot

#: Seconds over which the throughput is measured.
WINDOW_S = 4.0


@dataclass(frozen=True, slots=True)
class Counts:
    """The namespace's counters and lengths now."""

    ready: int
    scheduled: int
    succeeded: int
    dead: int
    retried: int
    recovered: int

    @property
    def ended(self) -> int:
        """Jobs that will not run again by themselves."""
        return self.succeeded + self.dead


@dataclass(frozen=True, slots=True)
class Facts:
    """One picture of the demo."""

    elapsed_s: float
    #: Files of the tree, as far as they are counted; a first pass over the tree counts them.
    total: int
    total_is_final: bool
    progress: Progress
    counts: Counts
    per_s: float
    snapshot: Snapshot
    #: File of each running job, by the job's id.
    files: dict[str, str]

    @property
    def left_s(self) -> float | None:
        """Seconds until all is done at this pace; None when that cannot be known yet."""
        if not self.total_is_final or self.per_s <= 0:
            return None
        return max(0, self.total - self.counts.ended) / self.per_s


class Pace:
    """Jobs per second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, ended: int) -> float:
        """Note how many have ended by now; return the pace."""
        now = time.monotonic()
        self._seen.append((now, ended))
        while now - self._seen[0][0] > WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        begun, first = self._seen[0]
        return (ended - first) / (now - begun) if now > begun else 0.0


def read_counts(client: Client, queue: str) -> Counts:
    """Read counters and lengths in one round trip."""
    with client.store.client.pipeline(transaction=False) as pipeline:
        pipeline.hmget(client.keys.stats, "succeeded", "dead", "retried", "recovered")
        pipeline.zcard(client.keys.scheduled)
        for lane in lanes([queue]):
            pipeline.llen(client.keys.ready(lane))
        counters, scheduled, *lengths = pipeline.execute()
    succeeded, dead, retried, recovered = (int(value or 0) for value in counters)
    return Counts(sum(lengths), scheduled, succeeded, dead, retried, recovered)


def read_files(client: Client, job_ids: Iterable[str]) -> dict[str, str]:
    """The file of each of these jobs."""
    ids = list(job_ids)
    with client.store.client.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hget(client.keys.job(job_id), "envelope")
        envelopes = pipeline.execute()
    files = {}
    for job_id, envelope in zip(ids, envelopes, strict=True):
        try:
            files[job_id] = str(decode(envelope or b"").args[0])
        except (EnvelopeError, IndexError):
            continue  # its record has gone since; the view then shows the id
    return files
