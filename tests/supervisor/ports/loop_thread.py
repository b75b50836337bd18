"""An asyncio loop in a thread, so that tests can speak to a port with plain blocking sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines in a loop of its own; `lag_s` measures whether anything has blocked that loop."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 10) -> T:
        """Run it in the loop and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def lag_s(self) -> float:
        """Seconds until the loop takes up a new callback."""
        return self.run(_lateness(self.loop.time()))


async def _lateness(since: float) -> float:
    return asyncio.get_running_loop().time() - since
