"""The constant load: a thread that enqueues jobs of all lengths, and counts those that were accepted."""

from __future__ import annotations

import random
import threading

from rqsup import Client, Request

#: Seconds between two batches, and jobs in each: 200 jobs a second.
PAUSE_S, BATCH = 0.05, 10
#: Unfinished jobs beyond which it waits: while the pool is down, the queue shall not grow without end.
OPEN_MOST = 2000


class Load:
    """Enqueues until it is stopped. `accepted` is what the client was told is in Redis."""

    def __init__(self, client: Client, seed: int) -> None:
        self.accepted = 0
        self._client = client
        self._luck = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> int:
        """End; returns how many jobs were accepted in all."""
        self._stop.set()
        self._thread.join()
        return self.accepted

    def ended(self) -> int:
        """Jobs that succeeded or are dead."""
        counted = self._client.store.client.hmget(self._client.keys.stats, "succeeded", "dead")
        return sum(int(count or 0) for count in counted)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            if self.accepted - self.ended() < OPEN_MOST:
                self.accepted += len(self._client.enqueue_many(self._request() for _ in range(BATCH)))

    def _request(self) -> Request:
        kind = self._luck.random()
        if kind < 0.04:
            return Request("probe.program", (0.2,))
        if kind < 0.08:
            return Request("probe.nap", (0.3,))
        return Request("probe.nap", (0.01 * self._luck.random(),))
