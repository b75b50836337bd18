"""What a claim, a beat or a look at the registry costs Redis while there is more of something."""

from __future__ import annotations

import itertools

from benchmarks.bench import BATCH, Bench
from rqsup.job import LEVEL_LABELS
from rqsup.store import scripts

#: Workers of one host in the figures by hosts.
WORKERS = 8
#: Jobs that a dead worker leaves.
LEFT = 64


def of_queues(bench: Bench) -> None:
    """A claim of one job, which waits in the last of so many queues."""
    for queues in (1, 10, 100):
        bench.empty()
        bench.fill(BATCH)
        names = [f"q{number}" for number in range(queues - 1)] + ["default"]
        bench.measure(f"claim of one, in the last of {queues} queues", [bench.claim(1, names)] * BATCH, BATCH)


def of_levels(bench: Bench) -> None:
    """A claim from each level of one queue, the highest first: there are always six."""
    for place, level in enumerate(LEVEL_LABELS, 1):
        bench.empty()
        bench.fill(2 * BATCH, level)
        bench.measure(f"claim of one, level {place} of {len(LEVEL_LABELS)}", [bench.claim(1)] * BATCH, BATCH)
        bench.measure(f"claim of {BATCH}, level {place} of {len(LEVEL_LABELS)}", [bench.claim(BATCH)], BATCH)


def of_tenants(bench: Bench, tenants: int) -> None:
    """A claim of one job in one of so many namespaces, each with a job of its own; taken from one after the other."""
    bench.empty()
    namespaces = [bench.of(f"tenant-{number}") for number in range(tenants)]
    for each in namespaces:
        each.run(each.beat(range(1)))
    # As many jobs in all, whoever they are of.
    turns = list(itertools.islice(itertools.cycle(namespaces), max(BATCH, tenants)))
    for each in turns:
        each.fill(1)
    for first in range(0, len(turns), BATCH):
        calls = [each.claim(1) for each in turns[first : first + BATCH]]
        bench.measure(f"claim of one, {tenants} namespaces", calls, len(calls))


def of_workers(bench: Bench) -> None:
    """A claim of one job while so many workers are registered."""
    for workers in (100, 1_000):
        bench.empty(workers)
        bench.fill(BATCH)
        bench.measure(f"claim of one, {workers} workers registered", [bench.claim(1)] * BATCH, BATCH)


def of_hosts(bench: Bench, hosts: int) -> None:
    """What one host does for its workers while there are so many hosts: its beat, its reaper's look, a recovery."""
    bench.empty(hosts * WORKERS)
    bench.fill(LEFT)
    bench.run(bench.claim(LEFT))
    for _ in range(10):
        bench.measure(f"one host's beat, of {hosts} hosts", [bench.beat(range(WORKERS))], 1)
        bench.measure_command(f"one reaper's look, of {hosts} hosts", 5, "HGETALL", f"{bench.root}workers")
    names = [f"{bench.root}worker:w{number}" for number in range(hosts * WORKERS)]
    bench.measure_command(f"a new reaper's first look at details, of {hosts} hosts", 1, "MGET", *names)
    recovery = scripts.recover(bench.root, worker="w0", cause=b"{}")
    bench.measure(f"recovery of a worker with {LEFT} jobs, a job, of {hosts} hosts", [recovery], LEFT)


def of_length(bench: Bench, length: int) -> None:
    """Each script while so many jobs wait."""
    bench.empty()
    bench.fill(length)
    for _ in range(20):
        [claimed] = bench.measure(f"claim, of {BATCH}, {length} waiting", [bench.claim(BATCH)], BATCH)
        bench.measure(f"settle, of {BATCH}, {length} waiting", [bench.settle(claimed.jobs)], BATCH)
        bench.measure(f"enqueue, one job, {length} waiting", bench.enqueue(BATCH), BATCH)
