"""The sending side, inside a peer's environment: `python producer.py ACTION …`, one JSON object on standard output.

Copied beside `peer_app.py` and `marks.py`; only the standard library is used.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

#: Jobs and bytes of one batch.
BATCH, BATCH_BYTES = 1_000, 4_000_000


def payload(number: int, size: int) -> dict[str, Any]:
    """What each job carries; `size` bytes more of it, to see what they cost."""
    return {"user_id": number, "path": f"/var/data/file-{number}.txt"} | ({"blob": "x" * size} if size else {})


async def one_by_one(peer: Any, kind: str, jobs: int, size: int) -> None:
    """Send each job with a call of its own, and wait for it."""
    enqueue = peer.enqueue
    if inspect.iscoroutinefunction(enqueue):
        for number in range(jobs):
            await enqueue(kind, payload(number, size))
    else:
        for number in range(jobs):
            enqueue(kind, payload(number, size))


async def batches(peer: Any, kind: str, jobs: int, size: int) -> None:
    """Send jobs by the peer's call for many."""
    step = max(1, min(BATCH, BATCH_BYTES // max(1, size)))
    for first in range(0, jobs, step):
        numbers = range(first, min(first + step, jobs))
        await _whatever(peer.enqueue_batch(kind, [payload(number, size) for number in numbers]))


async def pings(peer: Any, jobs: int, gap_s: float) -> None:
    """Send a job each `gap_s` seconds, and note when."""
    due = time.monotonic()
    for number in range(jobs):
        due += gap_s
        time.sleep(max(0.0, due - time.monotonic()))  # noqa: ASYNC251 - nothing else runs in this loop
        peer.marks.sent(number)
        await _whatever(peer.enqueue("noop", payload(number, 0)))


async def act(action: str, arguments: list[str]) -> dict[str, Any]:
    """Do one thing; returns what it took."""
    peer: Any = importlib.import_module("peer_app")
    if action == "about":
        return {"batch": hasattr(peer, "enqueue_batch"), "python": sys.version.split()[0]}
    await _whatever(getattr(peer, "setup", _nothing)())
    wall, cpu = time.perf_counter(), time.process_time()
    if action == "ping":
        await pings(peer, int(arguments[0]), float(arguments[1]))
    elif action == "warm":
        for number in range(peer.marks.slots - int(arguments[0]), peer.marks.slots):
            await _whatever(peer.enqueue("noop", payload(number, 0)))
    else:
        send = batches if action == "batch" else one_by_one
        await send(peer, arguments[0], int(arguments[1]), int(arguments[2]))
    took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    await _whatever(getattr(peer, "teardown", _nothing)())
    return took


def _nothing() -> None:
    """Neither set-up nor teardown."""


async def _whatever(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def main(arguments: list[str]) -> None:
    """Do it, with an event loop where the peer needs one."""
    action, *rest = arguments
    if action == "versions":
        print(json.dumps({name: version(name) for name in rest}))
        return
    run: Callable[[Any], dict[str, Any]] = _without_loop if os.environ.get("BENCH_PLAIN") else asyncio.run
    print(json.dumps(run(act(action, rest))), flush=True)


def _without_loop(coroutine: Any) -> dict[str, Any]:
    # Peers with plain functions may refuse to run inside of an event loop.
    try:
        coroutine.send(None)
    except StopIteration as end:
        found: dict[str, Any] = end.value
        return found
    raise RuntimeError("a peer with plain functions awaited something")


if __name__ == "__main__":
    main(sys.argv[1:])
