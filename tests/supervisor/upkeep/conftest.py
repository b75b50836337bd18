"""A registry of a pool without processes, on a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from rqsup import Client
from rqsup.settings import RedisSettings, Settings, WorkerSettings
from rqsup.store import scripts
from rqsup.store.async_store import AsyncStore
from rqsup.store.keys import lanes
from rqsup.store.scripts import Claimed
from rqsup.store.server import LocalServer
from rqsup.supervisor.child import Child
from rqsup.supervisor.pool import Pool
from rqsup.supervisor.upkeep.reaper import Reaper
from rqsup.supervisor.upkeep.registry import Registry
from rqsup.supervisor.upkeep.scheduler import Scheduler
from tests.supervisor.children import make_child


@dataclass
class Upkeep:
    """The upkeep of one master, in one event loop."""

    settings: Settings
    counters: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.store = AsyncStore(self.settings.redis)
        self.pool = Pool(host="h", slots=8, on_change=lambda: None, on_ready=lambda _: None, on_death=lambda _: None)
        self.registry = Registry(
            store=self.store, pool=self.pool, settings=lambda: self.settings, counters=self.counters
        )
        self.reaper = Reaper(
            store=self.store,
            registry=self.registry,
            settings=lambda: self.settings,
            own=lambda: set(self.pool.children),
        )
        self.scheduler = Scheduler(store=self.store, settings=lambda: self.settings, counters=self.counters)

    def add_child(self, worker: str = "w", **options: Any) -> Child:
        child = make_child(worker, **options)
        self.pool.children[worker] = child
        return child

    async def until(self, fact: Callable[[], Any], timeout_s: float = 10) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (seen := fact()):
            assert time.monotonic() < deadline, f"waited in vain; last seen: {seen!r}"
            await asyncio.sleep(0.005)
        return seen


@dataclass
class Bench:
    """Makes upkeeps, and looks at Redis from outside."""

    client: Client
    asked: int = 0

    def upkeep(self, *, lease_ttl: float = 15.0, **workers: Any) -> Upkeep:
        settings = msgspec.structs.replace(
            self.client.settings, redis=RedisSettings(url=self.client.settings.redis.url, socket_timeout=1.0),
            workers=WorkerSettings(lease_ttl=lease_ttl, **workers),
        )  # fmt: skip
        return Upkeep(settings)

    def run(self, act: Callable[[Upkeep], Coroutine[Any, Any, None]], **settings: Any) -> Upkeep:
        """Run a scene with one upkeep; tasks that it began end with it."""

        async def scene() -> Upkeep:
            upkeep = self.upkeep(**settings)
            try:
                await act(upkeep)
            finally:
                await upkeep.store.close()
            return upkeep

        return asyncio.run(scene())

    def commands(self) -> int:
        """Commands that the server has processed, those inside scripts included, without the ones that ask."""
        self.asked += 1
        return int(self.client.store.client.info("stats")["total_commands_processed"]) - self.asked

    def claim(self, worker: str, count: int = 1, *, register: bool = True) -> list[Claimed]:
        if register:
            self.client.store.run(scripts.heartbeat(self.client.keys.root, ttl_ms=60_000, details={worker: b"{}"}))
        call = scripts.claim(
            self.client.keys.root,
            worker=worker,
            count=count,
            lanes=lanes(["default"]),
            queues=["default"],
            resume=False,
            wait=False,
        )
        return self.client.store.run(call).jobs

    def enqueue(self, count: int = 1) -> list[str]:
        return [self.client.enqueue("t").id for _ in range(count)]

    def registered(self) -> dict[str, str]:
        found = self.client.store.client.hgetall(self.client.keys.workers)
        return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in found.items()}

    def ready(self) -> list[str]:
        """Ids in the order in which they will be taken."""
        return [
            one.decode() for one in self.client.store.client.lrange(self.client.keys.ready("default:normal"), 0, -1)
        ][::-1]


@pytest.fixture
def bench(client: Client) -> Bench:
    """On the shared server."""
    return Bench(client)


@pytest.fixture
def private_bench(private_redis: LocalServer, namespace: str) -> Any:
    """On a server that the test may kill."""
    with Client(private_redis.url, namespace=namespace) as client:
        yield Bench(client)
