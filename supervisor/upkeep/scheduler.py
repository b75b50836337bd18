"""Moves due jobs to their queues at their time, without polling.

`promote` answers how long it is until the next job is due, so the scheduler sleeps just so long. A
sender whose job becomes the next one due says so on a channel. Any number of schedulers may run: the
script moves each job once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rqsup.errors import RedisRefused, RedisUnavailable
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.async_store import AsyncStore
from rqsup.store.keys import Keys

#: Longest sleep, seconds: bounds the delay should a message on the channel be lost.
LONGEST_S = 30.0
#: Longest sleep while there is no channel: before it is open, or for a user who may not listen to it.
DEAF_S = 1.0
#: Pause after Redis failed, seconds.
RETRY_S = 0.5
#: Jobs moved by one script: bounds how long it keeps the server busy.
BATCH = 500


class Scheduler:
    """Promotes due jobs. Two tasks of the master's loop: `run` and `listen`."""

    def __init__(self, *, store: AsyncStore, settings: Callable[[], Settings], counters: dict[str, int]) -> None:
        self._store = store
        self._keys = Keys(settings().namespace)
        self._counters = counters
        self._sooner = asyncio.Event()
        self._listening = False
        self._refusal = ""
        self._log = get_logger("scheduler")

    async def run(self) -> None:
        """Promote for ever."""
        while True:
            self._sooner.clear()
            try:
                pause_s = await self.run_once()
            except RedisUnavailable:
                # Told by the beats already; each task of the master saying so would bury the log.
                pause_s = RETRY_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._sooner.wait()
            except TimeoutError:
                continue

    async def run_once(self) -> float:
        """Move what is due; returns the seconds until there may be more."""
        answer = await self._store.run(scripts.promote(self._keys.root, limit=BATCH))
        self._counters["promoted"] += answer.moved
        longest_s = LONGEST_S if self._listening else DEAF_S
        return longest_s if answer.wait_ms is None else min(longest_s, answer.wait_ms / 1000)

    async def listen(self) -> None:
        """Wake `run` whenever a job became the next one due."""
        while True:
            try:
                await self._store.listen(self._keys.due, self._heard)
            except RedisRefused as fault:
                if self._refusal != str(fault):
                    self._refusal = str(fault)
                    self._log.warning(
                        f"Redis refuses the channel {self._keys.due}: due jobs may start up to {DEAF_S:g} s late; "
                        "give this user the right to it (ACL SETUSER … &rqsup:*)", error=str(fault),
                    )  # fmt: skip
            except RedisUnavailable as fault:
                self._log.debug("the channel of due jobs is closed", error=str(fault))
            self._listening = False
            await asyncio.sleep(RETRY_S)

    def _heard(self) -> None:
        # The first time, too: what was sent while nobody listened is in Redis.
        self._listening = True
        self._sooner.set()
