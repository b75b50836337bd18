"""Where do a job's microseconds go? `python -m benchmarks.costs [--rounds 60]`

Redis' own time of each script, as the server counts it (`INFO commandstats`), for a few calls at a time: the median and the
least over all rounds, since a neighbour on the machine makes a call longer, never shorter. Then what the same scripts cost
with more queues, levels, tenants, workers and hosts, and longer queues (benchmarks/growth.py); and the processor time of a worker's steps, by themselves.
docs/performance.md reads these figures.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path

import msgspec

from benchmarks import growth
from benchmarks.bench import BATCH, Bench, envelope
from benchmarks.stage import NAMESPACE, positive, report
from rqsup import Client, context
from rqsup.envelope import Envelope, decode, new_id
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.scripts import Claimed
from rqsup.store.server import LocalServer
from rqsup.task import task
from rqsup.workers.alarm import Alarm
from rqsup.workers.run import Place, Runner
from rqsup.workers.slot import STRIDE, slot_at

#: Calls of a worker's step in one measurement.
STEPS = 20_000


def of_scripts(bench: Bench) -> None:
    """One job through each script, alone and in company. Calls of one job come many in a row: the first finds the caches cold."""
    bench.empty()
    bench.measure("enqueue, one job", bench.enqueue(BATCH), BATCH)
    bench.measure(f"enqueue_many, of {BATCH}", [scripts.enqueue_many(bench.root, bench.enqueue(BATCH))], BATCH)
    bench.fill(2 * BATCH)
    [claimed] = bench.measure(f"claim, of {BATCH}", [bench.claim(BATCH)], BATCH)
    bench.measure(f"settle, of {BATCH}", [bench.settle(claimed.jobs)], BATCH)
    claims = bench.measure("claim, one job", [bench.claim(1)] * BATCH, BATCH)
    jobs = [claim.jobs[0] for claim in claims]
    settled = bench.measure("settle and claim, one job", [bench.settle([job], count=1) for job in jobs], BATCH)
    bench.measure("settle, one job", [bench.settle(one.jobs) for one in settled], BATCH)


def steps() -> Iterator[tuple[str, Callable[[], object]]]:
    """What a worker does for each job, piece by piece; `all of it` is the runner, from bytes to settlement."""
    task(name="noop")(lambda: None)
    slot, alarm, job_id = slot_at(mmap(-1, STRIDE), 0), Alarm("w", lambda: False), new_id()
    alarm.install()
    runner = Runner(
        settings=Settings(), place=Place("w", 1, "h", os.getpid(), 1), slot=slot, alarm=alarm, log=get_logger("worker")
    )
    data = envelope(job_id)
    job = Claimed(job_id, 1, 0, 0, data)
    spec = Envelope(id=job_id, task="noop")
    seen = runner.context_of(job, spec, lambda: False)
    raw, name = job_id.encode(), b"noop"
    yield "decode the envelope", lambda: decode(data)
    yield "scoreboard: begin", lambda: slot.begin(raw, name, started=1.0, soft_deadline=2.0, hard_deadline=3.0)
    yield "scoreboard: end", slot.end
    yield "timeout: arm", lambda: alarm.arm("noop", job_id, 600.0)
    alarm.disarm()
    yield "context: make", lambda: runner.context_of(job, spec, lambda: False)
    yield "context: enter and leave", lambda: context.leave(context.enter(seen))
    yield "encode the result", lambda: msgspec.json.encode(None)
    yield "all of it", lambda: runner.run(job, lambda: False)


def of_worker(rounds: int) -> dict[str, float]:
    """Least processor time of each step, microseconds."""
    least: dict[str, float] = {}
    for name, step in steps():
        for _ in range(rounds):
            began = time.process_time()
            for _ in range(STEPS):
                step()
            us = (time.process_time() - began) / STEPS * 1e6
            least[name] = min(us, least.get(name, us))
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {name: round(us, 2) for name, us in least.items()}


def main(rounds: int = 60) -> int:
    """Run it and print one JSON line."""
    folder = Path(tempfile.mkdtemp(prefix="rqsup-costs-"))
    server = LocalServer(folder, aof=False).start()
    try:
        with Client(server.url, namespace=NAMESPACE) as client:
            bench = Bench(client, server.pid)
            for _ in range(rounds):
                of_scripts(bench)
                for of_growth in (growth.of_queues, growth.of_levels, growth.of_workers):
                    of_growth(bench)
            for _, many in itertools.product(range(max(1, rounds // 10)), (1, 10, 100, 1_000)):
                growth.of_tenants(bench, many)
                growth.of_hosts(bench, many)
            for length in (1_000, 10_000, 100_000, 1_000_000):
                growth.of_length(bench, length)
    finally:
        server.stop()
    figures = {
        name: {"median": round(statistics.median(us), 2), "least": round(min(us), 2)} for name, us in bench.us.items()
    }
    return report("costs", {"redis_us": figures, "worker_us": of_worker(5)}, kept=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs")
    parser.add_argument("--rounds", type=positive, default=60)
    raise SystemExit(main(parser.parse_args().rounds))
