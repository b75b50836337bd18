"""The coroutines of a plain worker's jobs: run to their ends one after the other, on one event loop, each within its time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

from rqsup.errors import JobTimeout
from rqsup.workers.alarm import Alarm

#: Seconds that the event loop has to cancel a coroutine at its timeout, before the alarm ends it from outside.
LOOP_LATE_S = 0.25


class Coroutines:
    """One worker's event loop for its jobs; made when the first of them is a coroutine."""

    def __init__(self, alarm: Alarm, kill_grace_s: float) -> None:
        self._alarm = alarm
        self._kill_grace_s = kill_grace_s
        self._loop: asyncio.Runner | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Run a coroutine to its end."""
        loop, self._loop = self._loop or asyncio.Runner(), None
        task: asyncio.Task[Any] | None = None

        async def bounded() -> Any:
            nonlocal task
            task = asyncio.current_task()
            return await self._bound(coroutine, timeout_s)

        try:
            # Without its own context, it would see the job for which the runner was made.
            return loop.run(bounded(), context=contextvars.copy_context())
        finally:
            # The alarm may have thrown out the loop while the coroutine stands: then neither is used again.
            if task is not None and task.done():
                self._loop = loop

    async def _bound(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        """Cancel the coroutine at its timeout, which is gentler than the alarm: its cleanup runs."""
        self._alarm.postpone(LOOP_LATE_S)
        loop = asyncio.get_running_loop()
        patience = loop.call_later(timeout_s, self._alarm.postpone, self._kill_grace_s / 2)
        try:
            return await within(coroutine, timeout_s)
        finally:
            patience.cancel()


async def within(coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
    """Run a job's coroutine, and cancel it at its timeout: its cleanup runs.

    Raises:
        JobTimeout: it was cancelled for that; a TimeoutError of the job's own stays what it is.
    """
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await coroutine
    except TimeoutError as fault:
        if limit.expired():
            raise JobTimeout(f"allowed are {timeout_s:g} s") from fault
        raise
