"""Do a million jobs leave anything behind? `python -m benchmarks.million [--jobs 1000000] [--block 100000] [--workers 2]`

Jobs stream through one Redis while a few of them wait; their records are kept for a second, as results are for a day.
For each block: rate, and processor time for each job, of workers and of Redis. The promise: every job ran exactly once; a job of the
last block costs within 10 % of one of the first; afterwards Redis, workers and master hold no more memory than before.

Two blocks come first and are not of the million. One gives the pool its memory, as work does. The other lets the removal of records
begin: Redis spends about 5 us on each record that expires (`expiry_us` here, its own figure), and until the first records are a
second old it has none to remove. Without this block the first 100,000 would be spared what all others pay (`spared_us` tells what
they cost then). Costs are compared as multiples of the yardstick's: the host has not the same speed for a minute.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import psutil

from benchmarks.drain import LOOK_PAUSE_S, Scene, payload, pool, scene
from benchmarks.meters import cpu_s, machine_cpu_s, pss_mib, tree, watching
from benchmarks.stage import end_in_order, positive, report, wait_for
from benchmarks.yardstick import Yardstick
from rqsup import Client, Request
from tests.system.daemon import Daemon, stats

#: Seconds for which a finished job's record is kept here: less than a block takes, so that each block pays for expiry.
RESULT_TTL_S = 1.0
#: Part by which the last block may cost more than the first.
FLAT = 0.10
#: Megabytes that pages, buffers and the allocators of six processes may differ by.
SLACK_MIB = 4.0
#: Jobs sent at once, and part of a block that may wait: the blocks are to hold as many sent jobs as ended ones.
CHUNK = 1_000
AHEAD = 0.05


@dataclass(frozen=True, slots=True)
class Level:
    """What had been spent when so many jobs had succeeded."""

    jobs: int
    at_s: float
    workers_s: float
    redis_s: float
    machine_s: float
    #: Of Redis' time, what went into removing records that had expired.
    expiry_s: float
    #: What one record cost the yardstick since the level before, microseconds.
    yardstick_us: float


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of jobs took."""

    jobs_per_s: float
    worker_us: float
    redis_us: float
    expiry_us: float
    busy_cores: float
    yardstick_us: float

    @property
    def cost_us(self) -> float:
        """Processor time of one job, wherever it was spent."""
        return self.worker_us + self.redis_us

    @property
    def cost(self) -> float:
        """The same as a multiple of the yardstick's record."""
        return self.cost_us / self.yardstick_us


@dataclass(frozen=True, slots=True)
class Memory:
    """Mebibytes in use while nothing is under way."""

    redis: float
    pool: float
    keys: int


def between(early: Level, late: Level) -> Block:
    """What was spent from one level to the next.

    >>> between(Level(0, 0, 0, 0, 0, 0, 9), Level(1000, 2, 1, 0.5, 3, 0.1, 10))
    Block(jobs_per_s=500.0, worker_us=1000.0, redis_us=500.0, expiry_us=100.0, busy_cores=1.5, yardstick_us=10)
    """
    # One who looks late may find two small blocks done at once: nothing is left for the second.
    jobs, seconds = max(1, late.jobs - early.jobs), late.at_s - early.at_s
    return Block(
        jobs / seconds, 1e6 * (late.workers_s - early.workers_s) / jobs, 1e6 * (late.redis_s - early.redis_s) / jobs,
        1e6 * (late.expiry_s - early.expiry_s) / jobs, (late.machine_s - early.machine_s) / seconds, late.yardstick_us,
    )  # fmt: skip


def faults(blocks: list[Block], before: Memory, after: Memory) -> list[str]:
    """What of the promise is broken; empty = nothing."""
    first, last = blocks[0], blocks[-1]
    found = []
    if last.cost > (1 + FLAT) * first.cost:
        found.append(
            f"a job of the last block costs {last.cost:.2f} of the yardstick ({last.cost_us:.1f} us), "
            f"one of the first {first.cost:.2f} ({first.cost_us:.1f} us)"
        )
    if after.redis > before.redis + SLACK_MIB:
        found.append(f"Redis grew from {before.redis:.1f} to {after.redis:.1f} MiB")
    if after.pool > before.pool + SLACK_MIB:
        found.append(f"master and workers grew from {before.pool:.1f} to {after.pool:.1f} MiB")
    if after.keys > before.keys:
        found.append(f"{after.keys} keys instead of {before.keys} in Redis")
    return found


class Run:
    """One stream of jobs, watched from outside."""

    def __init__(self, place: Scene, daemon: Daemon, block: int, yardstick: Yardstick) -> None:
        self._place, self._daemon, self._block, self._yardstick = place, daemon, block, yardstick
        self._redis = [psutil.Process(place.server.pid)]
        self.sent = 0

    def send(self, jobs: int) -> None:
        """Send so many more jobs, while only a part of a block waits. Runs in a thread of its own."""
        most = max(1, int(AHEAD * self._block))
        with Client(self._place.server.url, namespace=self._place.client.settings.namespace) as client:
            last = self.sent + jobs
            while self.sent < last:
                wait_for(lambda: self.sent - stats(client).get("succeeded", 0) < most, 600, "room", LOOK_PAUSE_S)
                numbers = range(self.sent, min(self.sent + min(CHUNK, most), last))
                client.enqueue_many(Request("bench.noop", (payload(number),)) for number in numbers)
                self.sent = numbers.stop

    def pass_through(self, jobs: int) -> list[Block]:
        """Send so many more jobs, and tell what each block of them took."""
        already = self.sent
        sender = threading.Thread(target=self.send, args=(jobs,), name="sender")
        levels = [self._level()]
        sender.start()
        for limit in range(already + self._block, already + jobs + 1, self._block):
            wait_for(lambda limit=limit: self._reached(limit), 600, f"{limit:,} jobs", LOOK_PAUSE_S)
            levels.append(self._level())
            print(f"{limit:,} jobs: {between(*levels[-2:])}", file=sys.stderr, flush=True)
        sender.join()
        return [between(*pair) for pair in pairwise(levels)]

    def memory(self) -> Memory:
        """What is held once the records of finished jobs have expired."""
        client = self._place.client
        wait_for(
            lambda: not next(client.store.client.scan_iter(f"{client.keys.root}job:*", 10_000), None),
            120,
            "expiry",
            0.2,
        )
        redis: Any = client.store.client
        redis.execute_command("MEMORY", "PURGE")
        return Memory(
            redis.info("memory")["used_memory"] / (1 << 20),
            # The marks grow with the jobs by design: they are this benchmark's, not the pool's.
            pss_mib(tree([self._daemon.pid]), without=self._place.path),
            redis.dbsize(),
        )

    def _reached(self, limit: int) -> bool:
        self._yardstick.look_when_due()
        return self._succeeded() >= limit

    def _succeeded(self) -> int:
        return stats(self._place.client).get("succeeded", 0)

    def _level(self) -> Level:
        redis: Any = self._place.client.store.client
        expiry_s = redis.info("stats")["expire_cycle_cpu_milliseconds"] / 1000
        ours = cpu_s(tree([self._daemon.pid]))
        return Level(
            self._succeeded(), time.monotonic(), ours, cpu_s(self._redis), machine_cpu_s(), expiry_s, self._yardstick.read()
        )  # fmt: skip


def measure(jobs: int, block: int, workers: int) -> dict[str, Any]:
    """Let so many jobs through, after a block that the pool gets its memory from, and one in which expiry begins."""
    every = jobs + 2 * block
    with (
        Yardstick() as yardstick, scene(every) as place, pool(place, workers=workers, result_ttl=RESULT_TTL_S) as daemon,
        watching() as watch,
    ):  # fmt: skip
        run = Run(place, daemon, block, yardstick)
        [spared] = run.pass_through(block)
        before = run.memory()
        _, *blocks = run.pass_through(block + jobs)
        after = run.memory()
        twice = sum(mark.runs != 1 for mark in place.marks.rows(every))
    wrong = faults(blocks, before, after) + ([f"{twice} jobs did not run exactly once"] if twice else [])
    return {
        "jobs": jobs, "workers": workers, "spared_us": round(spared.cost_us, 2), "first_us": round(blocks[0].cost_us, 2),
        "last_us": round(blocks[-1].cost_us, 2),
        "last_to_first": round(blocks[-1].cost / blocks[0].cost, 3), "memory_before": asdict(before),
        "memory_after": asdict(after), "other_cores": round(watch.other_cores, 2),
        "quiet": watch.quiet, "blocks": [asdict(one) for one in blocks], "faults": wrong,
    }  # fmt: skip


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line; a line per block goes to standard error."""
    end_in_order()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million")
    parser.add_argument("--jobs", type=positive, default=1_000_000)
    parser.add_argument("--block", type=positive, default=100_000)
    parser.add_argument("--workers", type=positive, default=2)
    options = parser.parse_args(arguments)
    # Whole blocks, and at least two of them: a first one and a last one.
    jobs = options.block * max(2, options.jobs // options.block)
    figures = measure(jobs, options.block, options.workers)
    return report("million", figures, kept=not figures["faults"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
