"""The parts of `make bench`: each measures one thing in rounds, with what it is compared to in the same round."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks import drain, footprint, idle, limit, memory, mixed, pickup, recovery, redis_benchmark, steady
from benchmarks.enqueued import enqueue
from benchmarks.figures import Figure, Tell, percentile, ratio
from benchmarks.meters import await_quiet, watching
from rqsup.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of everything; less for a first look, and for tests."""

    rounds: int = 3
    drain_jobs: int = 40_000
    pickups: int = 300
    steady_jobs: int = 3_200
    bursts: int = 24
    idle_s: float = 12.0
    recovery_jobs: int = 4_000
    recovery_kills: int = 20
    redis_commands: int = 100_000
    #: More rounds than asked for, for those in which others used the machine; none begins after so much monotonic time.
    extra: int = 2
    repeat_until: float = math.inf

    def wants_more(self, quiet: Sequence[bool]) -> bool:
        """Whether another round is to follow those that were quiet, or were not."""
        if len(quiet) < self.rounds:
            return True
        missing = quiet.count(True) < self.rounds
        return missing and len(quiet) < self.rounds + self.extra and time.monotonic() < self.repeat_until


FULL = Effort()
QUICK = Effort(1, 4_000, 50, 800, 4, 2.0, 1_000, 3, 10_000, extra=0)
Row = dict[str, float]


def in_rounds(effort: Effort, tell: Tell, name: str, measure: Callable[[], Row]) -> tuple[list[Row], tuple[bool, ...]]:
    """Measure so many times, and a little more often when disturbed; with whether each round was quiet."""
    rows: list[Row] = []
    quiet: list[bool] = []
    while effort.wants_more(quiet):
        await_quiet(2.0)
        with watching() as watch:
            rows.append(measure())
        quiet.append(watch.quiet)
        told = "  ".join(f"{key} {value:,.4g}" for key, value in rows[-1].items())
        tell(f"{name}, round {len(rows)}: {told}" + ("" if watch.quiet else "   (disturbed)"))
    return rows, tuple(quiet)


def figures_of(rows: list[Row], quiet: tuple[bool, ...], texts: dict[str, tuple[str, str]]) -> dict[str, Figure]:
    """A figure for each column; `texts` says what it is and its unit."""
    return {
        name: Figure(name, what, unit, tuple(row[name] for row in rows), quiet=quiet)
        for name, (what, unit) in texts.items()
        if name in rows[0]
    }


def ways_to_settle() -> dict[str, dict[str, Any]]:
    """Settings by name: the default ones, and the other ways to settle where this version has them."""
    ways: dict[str, dict[str, Any]] = {"default": {}}
    if "settle" in WorkerSettings.__struct_fields__:
        ways |= {way: {"settle": way} for way in ("each", "batch") if way != getattr(WorkerSettings(), "settle", None)}
    return ways


def drains(effort: Effort, tell: Tell) -> list[Figure]:
    """No-op jobs, beside the bare loop and what Redis can do."""
    jobs = effort.drain_jobs
    measures: dict[str, Callable[[], float]] = {
        f"drain.{name}": partial(_drained_per_s, jobs, way) for name, way in ways_to_settle().items()
    }
    measures |= {f"limit.{way}": partial(_limit_per_s, jobs, way) for way in ("each", "batch")}
    if redis_benchmark.found():
        measures["redis_benchmark"] = partial(redis_benchmark.measure, effort.redis_commands)

    found = figures_of(*in_rounds(effort, tell, "drain", partial(there_and_back, measures)), {
        "drain.default": ("no-op jobs, 2 workers, default settings", "jobs/s"),
        "drain.each": ("the same with settle: each", "jobs/s"),
        "drain.batch": ("the same with settle: batch", "jobs/s"),
        "limit.each": ("bare loop, a settle per job in a pipeline", "jobs/s"),
        "limit.batch": ("bare loop, settles in batches", "jobs/s"),
        "redis_benchmark": ("redis-benchmark -c 2 -P 16, script of 3 commands", "scripts/s"),
    })  # fmt: skip
    return [*found.values(), *_drain_ratios(found)]


def there_and_back(measures: Mapping[str, Callable[[], float]]) -> Row:
    """Measure rates one after the other, then all again from the last to the first: a host that changes its speed meanwhile hits all alike.

    >>> slower = iter([4.0, 4.0, 2.0, 2.0])
    >>> there_and_back({"first": lambda: next(slower), "second": lambda: next(slower)})
    {'first': 2.6666666666666665, 'second': 2.6666666666666665}
    """
    there = {name: measure() for name, measure in measures.items()}
    back = {name: measures[name]() for name in reversed(list(measures))}
    return {name: statistics.harmonic_mean((there[name], back[name])) for name in measures}


def _drained_per_s(jobs: int, way: dict[str, Any]) -> float:
    return drain.measure(jobs, **way).jobs_per_s


def _limit_per_s(jobs: int, way: limit.SettleWay) -> float:
    return limit.measure(jobs, settle=way).jobs_per_s


def _drain_ratios(found: dict[str, Figure]) -> list[Figure]:
    """What is promised: half of the bare loop of the same way to settle."""
    own = getattr(WorkerSettings(), "settle", "each")
    ratios = [ratio(
        "drain.default/limit", f"default settings, to the bare loop (settle: {own})", found["drain.default"],
        found[f"limit.{own}"], aim=0.5,
    )]  # fmt: skip
    for way in ("each", "batch"):
        if f"drain.{way}" in found:
            text = f"settle: {way}, to the bare loop"
            ratios.append(ratio(f"drain.{way}/limit", text, found[f"drain.{way}"], found[f"limit.{way}"]))
    if "redis_benchmark" in found:
        text = "default settings, to redis-benchmark"
        # No ratio for the gate: not every machine has the tool.
        share = ratio("drain.default/redis", text, found["drain.default"], found["redis_benchmark"])
        ratios.append(replace(share, unit="share"))
    return ratios


def pickups(effort: Effort, tell: Tell) -> list[Figure]:
    """From the call that sends a job until an idle worker starts it."""

    def once() -> Row:
        ours, hop = pickup.measure(effort.pickups), pickup.measure_hop(effort.pickups)
        return {
            "pickup.p50": percentile(ours, 0.5), "pickup.p99": percentile(ours, 0.99),
            "hop.p50": percentile(hop, 0.5), "hop.p99": percentile(hop, 0.99),
        }  # fmt: skip

    found = figures_of(*in_rounds(effort, tell, "pick-up", once), {
        "pickup.p50": ("idle worker starts a job after, median", "ms"),
        "pickup.p99": ("the same, 99th percentile", "ms"),
        "hop.p50": ("bare LPUSH to BLMOVE, median", "ms"),
        "hop.p99": ("the same, 99th percentile", "ms"),
    })  # fmt: skip
    text = "pick-up to the bare hop, median"
    return [*found.values(), ratio("pickup/hop", text, found["pickup.p50"], found["hop.p50"], better="lower")]


def steadies(effort: Effort, tell: Tell) -> list[Figure]:
    """Jobs of 10 ms against the ideal."""
    rows, quiet = in_rounds(effort, tell, "10 ms jobs", lambda: {"steady": steady.measure(effort.steady_jobs)})
    return [Figure(
        "steady", "jobs of 10 ms, 8 workers, to the ideal", "ratio", tuple(row["steady"] for row in rows), aim=steady.AIM,
        quiet=quiet,
    )]  # fmt: skip


def mixes(effort: Effort, tell: Tell) -> list[Figure]:
    """Tiny jobs beside long ones."""

    def once() -> Row:
        ours, alone = (percentile(mixed.measure(effort.bursts, **given), 0.99) for given in ({}, {"prefetch": 1}))
        return {"mixed.default": ours, "mixed.prefetch_1": alone}

    # One round holds hundreds of bursts' worth of waits: more of them would not fit into three minutes.
    one = replace(effort, rounds=1)
    found = figures_of(*in_rounds(one, tell, "mixed jobs", once), {
        "mixed.default": ("1 ms and 500 ms jobs, 99th percentile of the wait", "ms"),
        "mixed.prefetch_1": ("the same with prefetch: 1", "ms"),
    })  # fmt: skip
    text = "mixed jobs, default to prefetch: 1"
    both = ratio("mixed", text, found["mixed.default"], found["mixed.prefetch_1"], better="lower", aim=1.0)
    return [*found.values(), both]


def idles(effort: Effort, tell: Tell) -> list[Figure]:
    """What a pool of 2 takes while there is nothing to do."""
    tell(f"idle: leaving a pool alone for {effort.idle_s:g} s")
    found = idle.measure(effort.idle_s, 2)
    return [
        Figure("idle.cpu", "idle master and 2 workers", "CPU s/min", (60 * found.share,), "lower", 0.1),
        Figure("idle.commands", "the same, commands to Redis", "1/s", (found.commands_per_s,), "lower", 1.0),
    ]


def memories(_: Effort, tell: Tell) -> list[Figure]:
    """PSS of pools."""
    tell("memory: pools of 2 and of 8 workers")
    few, more = memory.measure(memory.FEW).pool_mib, memory.measure(memory.MORE).pool_mib
    each = (more - few) / (memory.MORE - memory.FEW)
    tell("memory: pools with an application of 100 MB")
    large = footprint.measure(peers=False)["rqsup"]
    return [
        Figure("memory.pool", f"master and {memory.MORE} workers, PSS", "MiB", (more,), "lower", memory.POOL_MIB),
        Figure("memory.worker", "one more worker", "MiB", (each,), "lower", memory.WORKER_MIB),
        Figure("memory.large", "one more worker, application of 100 MB", "MB", (large,), "lower"),
    ]


def recoveries(effort: Effort, tell: Tell) -> list[Figure]:
    """Jobs of workers that were killed."""
    tell(f"recovery: {effort.recovery_kills} workers killed while {effort.recovery_jobs:,} jobs run")
    found = recovery.measure(effort.recovery_jobs, effort.recovery_kills)
    back, lost = found["killed_to_back_ms"], effort.recovery_jobs - found["succeeded"] + len(found["faults"])
    return [
        Figure(
            "recovery.median",
            "kill -9 until its job is back in the queue, median",
            "ms",
            (back["median"],),
            "lower",
            20.0,
        ),
        Figure("recovery.max", "the same, longest", "ms", (back["max"],), "lower", 100.0),
        Figure("recovery.lost", "jobs lost", "jobs", (float(lost),), "lower", 0.0),
    ]


PARTS: dict[str, Callable[[Effort, Tell], list[Figure]]] = {
    "drain": drains, "enqueue": enqueue, "pickup": pickups, "steady": steadies, "mixed": mixes, "idle": idles,
    "memory": memories, "recovery": recoveries,
}  # fmt: skip
#: Those whose ratios `make bench-check` compares: they are quotients of two measurements in one round.
GATED = ("drain", "enqueue", "pickup", "steady")
