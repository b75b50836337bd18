"""Has a server take no more clients, while its sockets stay open for somebody else to go on with."""

from __future__ import annotations

import asyncio
import os

#: Turns of the loop from an accepted connection to the port's callback, with some to spare.
TURNS = 5


async def hold(servers: list[asyncio.Server]) -> list[int]:
    """Stop the servers; each client that was accepted is known to its port by then, the next ones wait in the kernel.

    Returns descriptors of the sockets, which still listen.
    """
    listeners = [listener for server in servers for listener in server.sockets]
    # First of all: should there be no descriptor left, nothing has changed.
    kept = [os.dup(listener.fileno()) for listener in listeners]
    for listener in listeners:
        # Before `close`: a server that is closed drops the connections that it has accepted and not yet shown.
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(TURNS):
        await asyncio.sleep(0)
    for server in servers:
        server.close()
    return kept
