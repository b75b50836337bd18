"""Finds workers whose master is gone, and has their jobs returned.

It reads the registry, never scans keys, and trusts no clock but this process's monotonic one: a worker
is dead when its beat counter stood still for `lease_ttl` of it. A jump of any wall clock, the server's
too, changes nothing. Workers of a dead master on this very machine are found without waiting.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import msgspec

from rqsup.envelope import NAME
from rqsup.errors import RedisUnavailable
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store.async_store import AsyncStore
from rqsup.store.keys import Keys
from rqsup.supervisor.upkeep.debt import Debt
from rqsup.supervisor.upkeep.registry import Details, Registry, is_running


@dataclass(slots=True)
class Sightings:
    """When each worker's beat counter was last seen to change. Pure but for its memory.

    >>> sightings = Sightings()
    >>> sightings.judge({"w": "1"}, now=0.0, ttl_s=15.0)
    []
    >>> sightings.judge({"w": "2"}, now=10.0, ttl_s=15.0)
    []
    >>> sightings.judge({"w": "2"}, now=25.0, ttl_s=15.0)
    ['w']
    """

    seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def judge(self, beats: dict[str, str], *, now: float, ttl_s: float) -> list[str]:
        """Take in the registry's counters; answers the workers that are dead."""
        self.seen = {
            worker: known if (known := self.seen.get(worker)) and known[0] == beat else (beat, now)
            for worker, beat in beats.items()
        }
        return [worker for worker, (_, since) in self.seen.items() if now - since >= ttl_s]

    def next_death(self, ttl_s: float, *, known: Collection[str] = ()) -> float | None:
        """When the first of them is dead, if it does not beat again; those whose death is known don't count."""
        return min((since + ttl_s for worker, (_, since) in self.seen.items() if worker not in known), default=None)


class Reaper:
    """Looks at the registry once per beat, and exactly when a worker's time is up."""

    def __init__(
        self, *, store: AsyncStore, registry: Registry, settings: Callable[[], Settings], own: Callable[[], set[str]]
    ) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._own = own
        self._sightings = Sightings()
        #: Dead workers, by the beat they were judged by: one that beat again may die again.
        self._owed: dict[str, str] = {}
        self._strange: set[bytes] = set()
        #: Workers of other machines: their details are not read again. A worker never moves, and they are most of a large registry.
        self._elsewhere: set[str] = set()
        self._log = get_logger("reaper")

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.run_once()
            except RedisUnavailable:
                # While we could not look, nobody's silence counts: Redis may have been away for all.
                self._sightings = Sightings()
            await asyncio.sleep(self._pause_s())

    async def run_once(self) -> None:
        """Look once, and have the dead workers' jobs returned."""
        keys = Keys(self._settings().namespace)
        # Before and after: one that died meanwhile is the registry's to recover.
        own = self._own() | self._registry.indebted
        flat = await self._store.command("HGETALL", keys.workers)
        registry = self._read_registry(_pairs(flat))
        own |= self._own()
        foreign = {worker: beat for worker, beat in registry.items() if worker not in own}
        self._owed = {worker: beat for worker, beat in self._owed.items() if foreign.get(worker) == beat}
        dead = dict.fromkeys(self._sightings.judge(foreign, now=time.monotonic(), ttl_s=self._settings().workers.lease_ttl),
                             "lease lost: its host or master is gone, no beat for the lease's time")  # fmt: skip
        if foreign:
            dead |= await self._widowed(keys, list(foreign))
        for worker, cause in dead.items():
            self._have_returned(worker, foreign[worker], cause)

    def _read_registry(self, pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
        """Counter by worker. What no master can have written is told once and left alone."""
        registry: dict[str, str] = {}
        for worker, beat in pairs:
            name = worker.decode("ascii", "replace")
            if NAME.fullmatch(name) and beat.isdigit():
                registry[name] = beat.decode()
            elif worker not in self._strange:
                self._strange.add(worker)
                self._log.warning("the registry holds what is no worker: remove it", entry=repr(worker)[:200])
        return registry

    async def _widowed(self, keys: Keys, workers: list[str]) -> dict[str, str]:
        """Workers on this machine whose processes and master are all gone: no need to wait for a lease."""
        self._elsewhere.intersection_update(workers)
        asked = [worker for worker in workers if worker not in self._elsewhere]
        rows = await self._store.command("MGET", *(keys.worker(worker) for worker in asked)) if asked else []
        found = {}
        for worker, row in zip(asked, rows, strict=True):
            details = _read(row)
            if details is None:
                continue
            if details.home != self._registry.home:
                self._elsewhere.add(worker)
                continue
            # An upgrade that could not take over left workers under our very pid, and ended them.
            orphaned = details.master == os.getpid() or not is_running(details.master, details.master_started)
            if orphaned and not is_running(details.pid, details.started):
                found[worker] = "its master on this machine died"
        return found

    def _have_returned(self, worker: str, beat: str, cause: str) -> None:
        if worker in self._owed:
            return
        self._owed[worker] = beat
        self._log.warning("worker is dead", worker=worker, cause=cause)
        self._registry.add(Debt(worker, 0, 0, cause, "", time.monotonic(), beat=beat, reaped=True))

    def _pause_s(self) -> float:
        interval_s = self._registry.interval_s if self._store.ok else min(1.0, self._registry.interval_s)
        # A worker whose jobs cannot be returned yet must not have this loop spin.
        due = self._sightings.next_death(self._settings().workers.lease_ttl, known=self._owed)
        if due is None:
            return interval_s
        return max(0.01, min(interval_s, due - time.monotonic()))


def _pairs(flat: dict[bytes, bytes] | list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True))


def _read(row: bytes | None) -> Details | None:
    if row is None:
        return None
    try:
        return msgspec.json.decode(row, type=Details)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
