"""What the harness has to know of a peer. One file in `systems/` says it for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: Begins every application. Its folder also holds `marks.py` and `producer.py`.
HEADER = """\
import asyncio, os, time
from marks import Marks

URL, NAME = os.environ["BENCH_URL"], "bench"
TUNED = os.environ["BENCH_TUNED"] == "1"
marks = Marks(os.environ["BENCH_MARKS"])
"""
#: The handlers of peers with plain functions, and of those with coroutines; 2 s is long enough to be killed in.
PLAIN = """\
def noop(payload):
    marks.start(payload["user_id"])

def nap(payload):
    marks.start(payload["user_id"])
    time.sleep(2)
    marks.done(payload["user_id"])
"""
ASYNC = """\
async def noop(payload):
    marks.start(payload["user_id"])

async def nap(payload):
    marks.start(payload["user_id"])
    await asyncio.sleep(2)
    marks.done(payload["user_id"])
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """Jobs a second as far as known: only for how many jobs a measurement takes."""

    drain: int
    enqueue: int
    #: 0 = there is no call for batches.
    batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One queue with its settings.

    `application` is the text of a module `peer_app`: it declares the tasks `noop` and `nap` (of one payload, a dictionary),
    and `enqueue(kind, payload)`; where the peer can, `enqueue_batch(kind, payloads)`; where it must, `setup` and `teardown`. Each
    is a function or a coroutine function.
    """

    name: str
    #: Pinned, for its own environment.
    requirements: tuple[str, ...]
    application: str
    #: The commands that start so many worker processes; second argument: with settings for throughput, or the default ones.
    workers: Callable[[int, bool], list[list[str]]]
    pace: Pace
    #: The settings measured, in words, and the page that recommends them.
    settings: str
    recommended: str
    #: First Python version that it runs on.
    python: tuple[int, int] = (3, 11)
    #: Name of the environment, when several share one.
    environment: str = ""
    #: Variables for its processes, with the settings for throughput.
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Name of its environment's folder."""
        return self.environment or self.name
