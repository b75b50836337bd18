"""What a worker tells Redis of ended attempts, and the jobs that it asks for with that. Answers are read later than calls are sent."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from rqsup.store import scripts
from rqsup.store.keys import Keys
from rqsup.store.scripts import Claimed, Settled, Settlement
from rqsup.store.wire import Wire
from rqsup.workers.slot import Slot


class Settling:
    """The settlements of one worker: those that are not sent yet, and those that have no answer."""

    def __init__(self, *, wire: Wire, keys: Keys, worker: str, lanes: Sequence[str], slot: Slot, log: Any) -> None:
        self._wire = wire
        self._root = keys.root
        self._worker = worker
        self._lanes = lanes
        self._slot = slot
        self._log = log
        self.unsent: list[Settlement] = []
        self._sent: deque[list[Settlement]] = deque()
        #: When the oldest of `unsent` ended.
        self.since = 0.0
        #: When jobs were last asked for.
        self.asked = 0.0
        #: Among the answers that are due is one with the next jobs.
        self.ahead = False

    @property
    def awaited(self) -> int:
        """Answers that are due."""
        return len(self._sent)

    def add(self, settlement: Settlement) -> None:
        """Keep how an attempt ended."""
        if not self.unsent:
            self.since = time.monotonic()
        self.unsent.append(settlement)

    def give_back(self, jobs: Sequence[Claimed]) -> None:
        """Keep that these were not begun, and go back for others; they stay in their order."""
        # Each goes to the front of its queue: so the newest first.
        self.unsent += [Settlement(job.id, job.token, "release", b"", 0) for job in reversed(jobs)]

    def send(self, claim: int = 0) -> None:
        """Send all that is kept, and ask for so many jobs."""
        if claim:
            self.asked = time.monotonic()
        # In this order: wherever a signal breaks it off, each is in one of the two.
        self._sent.append(batch := self.unsent)
        self.unsent = []
        self._wire.send(
            scripts.settle(self._root, worker=self._worker, settlements=batch, count=claim, lanes=self._lanes)
        )

    def send_ahead(self, claim: int) -> None:
        """The same, for jobs that are needed only when the next one has ended."""
        self.ahead = True
        self.send(claim)

    def receive(self) -> list[Claimed]:
        """Wait for every answer that is due; returns the jobs that were claimed."""
        jobs: list[Claimed] = []
        while self._sent:
            jobs += self.take(self._wire.receive())
        self.ahead = False
        return jobs

    def receive_arrived(self) -> list[Claimed]:
        """Read the answers that are here, and wait for none; returns the jobs that were claimed with them."""
        jobs = [job for settled in self._wire.receive_arrived() for job in self.take(settled)]
        self.ahead = bool(self._sent)
        return jobs

    def take(self, settled: Settled) -> list[Claimed]:
        """Read the answer to the oldest call that has none yet."""
        batch = self._sent.popleft()
        for one, verdict in zip(batch, settled.verdicts, strict=True):
            if verdict not in {"ok", "repeated"}:
                self._slot.stale += verdict == "stale"
                self._log.warning("settle refused", job_id=one.id, verdict=verdict, outcome=one.outcome)
        self.report(settled.faults)
        return settled.jobs

    def report(self, faults: Sequence[str]) -> None:
        """Tell of keys that have a wrong type."""
        for fault in faults:
            self._log.error("a key has a wrong type: move it away, jobs behind it wait", fault=fault)

    def forget_connection(self) -> None:
        """Keep what has no answer, to be sent again: a repeat is recognised by its token."""
        unanswered = [one for batch in self._sent for one in batch] + self.unsent
        # What was given back is either with others now, or is taken back with the rest of this worker's list.
        self.unsent = [one for one in unanswered if one.outcome != "release"]
        self._sent.clear()
        self.ahead = False
