"""Clients that the loop has accepted, but not yet shown to their port."""

from __future__ import annotations

import asyncio

#: Turns of the loop from an accepted connection to the port's callback, with some to spare.
TURNS = 5


async def accepted() -> None:
    """Wait until each client that was accepted is known to its port."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
