"""What is measured of each peer, by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.pool import Pool
from benchmarks.peers.scenarios import drain, enqueue, length, memory, payload, pickup, recovery, scaling
from benchmarks.peers.scenarios.scale import Row, Scale

SCENARIOS: dict[str, Callable[[Pool, Scale], list[Row]]] = {
    "drain": drain.run, "enqueue": enqueue.run, "pickup": pickup.run, "memory": memory.run, "scaling": scaling.run,
    "length": length.run, "payload": payload.run, "recovery": recovery.run,
}  # fmt: skip
#: With default settings: what a user gets who only installs it.
PLAIN = ("recovery",)
