"""Do a million jobs leave anything behind? `python -m benchmarks.million [--jobs 1000000] [--block 100000] [--workers 2]`

Jobs stream through one Redis while a few of them wait; their records are kept for a second, as results are for a day.
For each block: rate, and processor time for each job, of workers and of Redis. The promise: every job ran exactly once; a job of the
last block costs within 10 % of one of the first; afterwards Redis, workers and master hold no more memory than before.

Two things make the costs of two blocks differ for other reasons than the number of jobs before them, and are kept out:

- Redis spends about 5 us on each record that expires (`expiry_us`, its own figure), and has none to remove until the first is a second
  old. So both sides of the comparison begin with a block in which expiry begins (`spared_us` tells what a job of the very first costs).
- A shared host changes its speed by a third within a minute. So the last block is not compared with a figure from a minute ago but with
  the first of a second, fresh Redis and pool: both run in turns, a small part of a block each (`aged_us`, `fresh_us`).
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import psutil

from benchmarks.drain import LOOK_PAUSE_S, Scene, payload, pool, scene
from benchmarks.meters import cpu_s, machine_cpu_s, pss_mib, tree, watching
from benchmarks.stage import end_in_order, positive, report, wait_for
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
#: Parts of a block that the aged and the fresh run pass in turns.
TURNS = 20


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


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of jobs took."""

    jobs_per_s: float
    worker_us: float
    redis_us: float
    expiry_us: float
    busy_cores: float

    @property
    def cost_us(self) -> float:
        """Processor time of one job, wherever it was spent."""
        return self.worker_us + self.redis_us


@dataclass(frozen=True, slots=True)
class Memory:
    """Mebibytes in use while nothing is under way."""

    redis: float
    pool: float
    keys: int


def between(early: Level, late: Level) -> Block:
    """What was spent from one level to the next.

    >>> between(Level(0, 0, 0, 0, 0, 0), Level(1000, 2, 1, 0.5, 3, 0.1))
    Block(jobs_per_s=500.0, worker_us=1000.0, redis_us=500.0, expiry_us=100.0, busy_cores=1.5)
    """
    # One who looks late may find two small blocks done at once: nothing is left for the second.
    jobs, seconds = max(1, late.jobs - early.jobs), late.at_s - early.at_s
    return Block(
        jobs / seconds, 1e6 * (late.workers_s - early.workers_s) / jobs, 1e6 * (late.redis_s - early.redis_s) / jobs,
        1e6 * (late.expiry_s - early.expiry_s) / jobs, (late.machine_s - early.machine_s) / seconds,
    )  # fmt: skip


def faults(fresh: Block, aged: Block, before: Memory, after: Memory) -> list[str]:
    """What of the promise is broken; empty = nothing."""
    found = []
    if aged.cost_us > (1 + FLAT) * fresh.cost_us:
        found.append(f"a job of the last block costs {aged.cost_us:.1f} us, one of the first {fresh.cost_us:.1f} us")
    if after.redis > before.redis + SLACK_MIB:
        found.append(f"Redis grew from {before.redis:.1f} to {after.redis:.1f} MiB")
    if after.pool > before.pool + SLACK_MIB:
        found.append(f"master and workers grew from {before.pool:.1f} to {after.pool:.1f} MiB")
    if after.keys > before.keys:
        found.append(f"{after.keys} keys instead of {before.keys} in Redis")
    return found


class Run:
    """One stream of jobs, watched from outside."""

    def __init__(self, place: Scene, daemon: Daemon, block: int) -> None:
        self._place, self._daemon, self._block = place, daemon, block
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
        levels = [self.level()]
        sender.start()
        for limit in range(already + self._block, already + jobs + 1, self._block):
            wait_for(lambda limit=limit: self._succeeded() >= limit, 600, f"{limit:,} jobs", LOOK_PAUSE_S)
            levels.append(self.level())
            print(f"{limit:,} jobs: {between(*levels[-2:])}", file=sys.stderr, flush=True)
        sender.join()
        return [between(*pair) for pair in pairwise(levels)]

    def turn(self, jobs: int) -> None:
        """Send so many more jobs, and wait for their ends."""
        self.send(jobs)
        wait_for(lambda: self._succeeded() >= self.sent, 600, f"{self.sent:,} jobs", LOOK_PAUSE_S)

    def twice(self) -> int:
        """How many jobs did not run exactly once."""
        return sum(mark.runs != 1 for mark in self._place.marks.rows(self.sent))

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

    def _succeeded(self) -> int:
        return stats(self._place.client).get("succeeded", 0)

    def level(self) -> Level:
        """What has been spent until now."""
        redis: Any = self._place.client.store.client
        expiry_s = redis.info("stats")["expire_cycle_cpu_milliseconds"] / 1000
        ours = cpu_s(tree([self._daemon.pid]))
        return Level(self._succeeded(), time.monotonic(), ours, cpu_s(self._redis), machine_cpu_s(), expiry_s)


@contextlib.contextmanager
def running(jobs: int, block: int, workers: int) -> Iterator[Run]:
    """A server and a pool for so many jobs."""
    with scene(jobs) as place, pool(place, workers=workers, result_ttl=RESULT_TTL_S) as daemon:
        yield Run(place, daemon, block)


def in_turns(runs: Sequence[Run], jobs: int) -> list[Block]:
    """Let so many jobs through each of the runs, a part of them at a time; what they cost each."""
    levels = [run.level() for run in runs]
    for part in range(TURNS):
        # The parts of a number that does not divide evenly come to it in the end.
        share = jobs * (part + 1) // TURNS - jobs * part // TURNS
        for run in runs:
            run.turn(share)
    return [between(level, run.level()) for level, run in zip(levels, runs, strict=True)]


def measure(jobs: int, block: int, workers: int) -> dict[str, Any]:
    """Let so many jobs through, and then a last block in turns with the first of a fresh run."""
    with watching() as watch, running(jobs + 2 * block, block, workers) as aged:
        [spared] = aged.pass_through(block)
        before = aged.memory()
        blocks = aged.pass_through(jobs - block)
        with running(2 * block, block, workers) as fresh:
            in_turns([aged, fresh], block)  # expiry begins
            last, first = in_turns([aged, fresh], block)
            twice = aged.twice() + fresh.twice()
        after = aged.memory()
    wrong = faults(first, last, before, after) + ([f"{twice} jobs did not run exactly once"] if twice else [])
    return {
        "jobs": aged.sent, "workers": workers, "spared_us": round(spared.cost_us, 2), "fresh_us": round(first.cost_us, 2),
        "aged_us": round(last.cost_us, 2), "aged_to_fresh": round(last.cost_us / first.cost_us, 3),
        "fresh": asdict(first), "aged": asdict(last),
        "memory_before": asdict(before),
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
