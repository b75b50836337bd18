"""Beside `baggage`, tasks that need more: a coroutine, and a sandbox."""

from __future__ import annotations

import asyncio

from rqsup import task


@task(name="baggage.wait")
async def wait() -> None:
    """A job that is a coroutine."""
    await asyncio.sleep(0)


@task(name="baggage.boxed", isolation="sandbox")
def boxed() -> int:
    """A job in a sandbox."""
    return 1
