"""What sending a job costs its sender: one by one, many, from asyncio, through a buffer; beside the bare command.

    python -m benchmarks.enqueue [ROUNDS]

Each round measures everything once, in turns, in an empty namespace; the figures are medians. For the
ratios single calls take turns, so that a busy machine slows all alike. Wall time holds the server's own work, CPU time is the sender's alone.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hiredis

from benchmarks.stage import NAMESPACE, numbers, report
from rqsup import AsyncClient, Client, Request, Task
from rqsup.envelope import new_id
from rqsup.sending import Packer
from rqsup.store import scripts
from rqsup.store.lines import Lines
from rqsup.store.server import LocalServer
from rqsup.store.wire import Wire

#: Jobs of one measurement, one by one and in batches; promised share of `enqueue` over the bare command.
SINGLE, BATCH, MOST_RATIO = 2_000, 20_000, 1.15
#: Tasks that send at once through one AsyncClient.
CONCURRENT = 100
NOOP = Task(print, "noop", queue="q")


def commands(count: int) -> list[tuple[scripts.Argument, ...]]:
    """Prebuilt commands, each of a job of its own."""
    root, envelope = f"rqsup:{{{NAMESPACE}}}:", b'{"id":"%s","task":"noop","queue":"q","args":[1]}'
    ids = [new_id() for _ in range(count)]
    calls = [
        scripts.enqueue(root, job_id=one, queue="q", level="normal", envelope=envelope.replace(b"%s", one.encode()))
        for one in ids
    ]
    return [call.command(flags=True) for call in calls]


def measured(act: Callable[[], Any], count: int) -> tuple[float, float]:
    """Wall and CPU microseconds for each of `count` jobs."""
    cpu, wall = _cpu(), time.perf_counter()
    act()
    return (time.perf_counter() - wall) / count * 1e6, (_cpu() - cpu) / count * 1e6


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Round:
    """All measurements of one round, each in an empty namespace."""

    def __init__(self, client: Client, wire: Wire) -> None:
        self.client = client
        self.wire = wire
        self.packer = Packer(client.settings)
        self.lines = Lines(client.settings.redis)

    def bare(self) -> tuple[float, float]:
        """EVALSHA with prebuilt arguments, on the connection that `Client` uses."""
        built = [self.packer.prepare(Request(NOOP, (number,))) for number in range(SINGLE)]
        return measured(lambda: [self.lines.run(one) for one in built], SINGLE)

    def bare_redis_py(self) -> tuple[float, float]:
        """EVALSHA with prebuilt arguments through redis-py."""
        built, run = commands(SINGLE), self.client.store.client.execute_command
        return measured(lambda: [run(*one) for one in built], SINGLE)

    def enqueue(self) -> tuple[float, float]:
        """`Client.enqueue`, one by one."""
        return measured(lambda: [self.client.enqueue(NOOP, number) for number in range(SINGLE)], SINGLE)

    def bare_pipelined(self) -> tuple[float, float]:
        """Packed EVALSHAs, 500 in a write: what the server itself allows."""
        packed = [hiredis.pack_command(cast(Any, command)) for command in commands(BATCH)]

        def act() -> None:
            for start in range(0, BATCH, 500):
                self.wire.write(b"".join(packed[start : start + 500]))
                for _ in range(500):
                    self.wire.answer()

        return measured(act, BATCH)

    def enqueue_many(self) -> tuple[float, float]:
        """`Client.enqueue_many`."""
        return measured(lambda: self.client.enqueue_many(Request(NOOP, (n,)) for n in range(BATCH)), BATCH)

    def buffer(self) -> tuple[float, float]:
        """`Client.buffer`, until all is accepted."""

        def act() -> None:
            with self.client.buffer() as buffer:
                for number in range(BATCH):
                    buffer.enqueue(NOOP, number)

        return measured(act, BATCH)

    def async_one(self) -> tuple[float, float]:
        """`AsyncClient.enqueue`, one awaited after the other."""
        return measured(lambda: self._in_tasks(1, SINGLE), SINGLE)

    def async_concurrent(self) -> tuple[float, float]:
        """`AsyncClient.enqueue` from many tasks at once."""
        return measured(lambda: self._in_tasks(CONCURRENT, BATCH), BATCH)

    def _in_tasks(self, tasks: int, count: int) -> None:
        async def send(sender: AsyncClient) -> None:
            for number in range(count // tasks):
                await sender.enqueue(NOOP, number)

        async def act() -> None:
            async with AsyncClient(settings=self.client.settings) as sender:
                await asyncio.gather(*(send(sender) for _ in range(tasks)))

        asyncio.run(act())

    def ratios(self) -> tuple[float, float]:
        """`enqueue` to the bare command, on its own connection and through redis-py: medians of calls made in turns."""
        built = [self.packer.prepare(Request(NOOP, (number,))) for number in range(SINGLE)]
        plain = self.client.store.client.execute_command
        bare: list[float] = []
        mine: list[float] = []
        redis_py: list[float] = []
        now = time.perf_counter
        for sending, command in zip(built, commands(SINGLE), strict=True):
            times = [now()]
            self.lines.run(sending)
            times.append(now())
            self.client.enqueue(NOOP, 1)
            times.append(now())
            plain(*command)
            times.append(now())
            for series, (start, end) in zip((bare, mine, redis_py), itertools.pairwise(times), strict=True):
                series.append(end - start)
        own = statistics.median(mine)
        return own / statistics.median(bare), own / statistics.median(redis_py)

    def run(self) -> dict[str, tuple[float, float]]:
        """Measure everything once."""
        found = {}
        for act in (
            self.bare, self.enqueue, self.bare_redis_py, self.async_one, self.bare_pipelined, self.enqueue_many,
            self.buffer, self.async_concurrent,
        ):  # fmt: skip
            found[act.__name__] = act()
            self.client.store.client.flushdb()
        return found


def main(rounds: int) -> int:
    """Measure, and print one line."""
    with (
        tempfile.TemporaryDirectory(prefix="rqsup-bench-") as folder,
        LocalServer(Path(folder) / "redis", aof=False) as server,
        Client(server.url, namespace=NAMESPACE) as client,
    ):
        wire = Wire(client.settings.redis, name="", scripts=("enqueue",))
        wire.connect()
        one = Round(client, wire)
        one.run()  # warm-up
        found, ratios = [], []
        for _ in range(rounds):
            found.append(one.run())
            ratios.append(one.ratios())
        wire.close()
        one.lines.close()
    wall: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    for figures in found:
        for name, (wall_us, cpu_us) in figures.items():
            wall[name].append(wall_us)
            cpu[name].append(cpu_us)
    to_bare, to_redis_py = (round(statistics.median(series), 3) for series in zip(*ratios, strict=True))
    medians = {
        name: {
            "wall_us": round(statistics.median(wall[name]), 1), "cpu_us": round(statistics.median(cpu[name]), 1),
            "per_s": round(1e6 / statistics.median(wall[name])),
        }
        for name in wall
    }  # fmt: skip
    line: dict[str, Any] = {
        "rounds": rounds,
        "ratio_to_bare": to_bare,
        "ratio_to_bare_redis_py": to_redis_py,
        **medians,
    }
    return report("enqueue", line, kept=to_bare <= MOST_RATIO)


if __name__ == "__main__":
    sys.exit(main(*numbers(sys.argv[1:], "enqueue", rounds=(5, "Rounds, each with everything once."))))
