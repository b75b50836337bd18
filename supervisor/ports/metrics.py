"""The master's figures in Prometheus' text format, made from one snapshot.

No global registry and no files per process: the snapshot already holds the totals of living and dead
workers, so counters never fall while the master lives, however often workers are replaced.
Label values are states, outcomes, and configured queues and levels: never job ids or task names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from rqsup import __version__
from rqsup.supervisor.snapshot import Snapshot

#: States that a worker can be in; each is always shown, so that a graph does not break off at 0.
WORKER_STATES = ("starting", "idle", "busy", "quiet", "draining", "dying")
#: Ends of an attempt.
OUTCOMES = ("succeeded", "retried", "buried", "crashed", "returned")

OUTCOMES_HELP = (
    "Attempts of jobs that ended, by outcome: errors are retried or buried, a crash took the worker with it, "
    "returned jobs were handed back through no fault of theirs."
)

#: Name in the snapshot's counters, metric name without _total, help.
COUNTERS = (
    ("recovered", "rqsup_recovered_jobs", "Jobs that went back to their queues after their worker died."),
    ("deaths", "rqsup_worker_deaths", "Workers that ended without being told to."),
    ("restarts", "rqsup_worker_restarts", "Workers started in place of one that ended."),
    ("stale", "rqsup_stale_settles", "Results refused because the worker had lost its lease."),
    ("strangers", "rqsup_strangers_reaped", "Processes left behind by jobs that the master reaped."),
    ("beats_failed", "rqsup_beats_failed", "Heartbeats that did not reach Redis."),
    ("promoted", "rqsup_promoted_jobs", "Scheduled jobs that became due and were put into their queues."),
    ("reaped", "rqsup_reaped_workers", "Dead workers, of this or another host, whose jobs were returned."),
    ("recycled", "rqsup_recycled_workers", "Workers found worn by a limit of jobs, age or memory, to be replaced."),
    ("memory_kills", "rqsup_memory_kills", "Workers killed in a job that used more than workers.max_memory_hard."),
    ("output_lines", "rqsup_output_lines", "Lines that jobs printed and that went to the journal or the log."),
    (
        "output_dropped",
        "rqsup_output_dropped",
        "Lines that jobs printed beyond the limits, or that the journal did not take.",
    ),
    ("upgrades", "rqsup_upgrades", "Upgrades of rqsup in place since the master started."),
)

Depths = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class LoopStats:
    """How the master's loop is doing."""

    #: Turns since the start.
    turns: int
    #: Seconds by which the latest timer was late.
    lag_s: float
    #: Turns that took 50 ms or longer, and the longest one in seconds.
    slow: int = 0
    longest_s: float = 0.0


def render(
    snapshot: Snapshot,
    loop: LoopStats | None = None,
    *,
    depths: Depths | None = None,
    scheduled: int | None = None,
    dead: int | None = None,
) -> bytes:
    """The page /metrics.

    Args:
        snapshot: the master and its workers.
        loop: the state of the master's loop.
        depths: ready jobs by (queue, level), configured queues only; None = not known, as when Redis is away.
        scheduled: jobs that wait for their time.
        dead: jobs in the dead letters.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(_metrics(snapshot, loop, depths, scheduled, dead)))
    return generate_latest(registry)


class _Page(Collector):
    """What prometheus_client asks for the metrics; used once."""

    def __init__(self, metrics: Iterator[Metric]) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        """Nothing: there is one collector per page, so names cannot collide."""
        return []

    def collect(self) -> Iterator[Metric]:
        return self._metrics


def _metrics(
    snapshot: Snapshot, loop: LoopStats | None, depths: Depths | None, scheduled: int | None, dead: int | None
) -> Iterator[Metric]:
    names = {"version": __version__, "pool": snapshot.pool, "namespace": snapshot.namespace}
    yield InfoMetricFamily("rqsup", "The rqsup that answers.", value=names)
    yield from _workers(snapshot)
    yield from _jobs(snapshot)
    yield from _master(snapshot)
    if loop is not None:
        yield CounterMetricFamily("rqsup_loop_turns", "Turns of the master's loop.", value=loop.turns)
        yield CounterMetricFamily("rqsup_loop_slow_turns", "Turns that took 50 ms or longer.", value=loop.slow)
        yield _gauge("rqsup_loop_longest_turn_seconds", "The longest turn since the start.", loop.longest_s)
        yield _gauge("rqsup_loop_lag_seconds", "Seconds by which the loop's latest timer was late.", loop.lag_s)
    if depths is not None:
        ready = GaugeMetricFamily("rqsup_queue_ready_jobs", "Jobs ready to be taken.", labels=["queue", "level"])
        for (queue, level), length in sorted(depths.items()):
            ready.add_metric([queue, level], length)
        yield ready
    if scheduled is not None:
        yield _gauge("rqsup_scheduled_jobs", "Jobs that wait for their time.", scheduled)
    if dead is not None:
        yield _gauge("rqsup_dead_jobs", "Jobs in the dead letters.", dead)


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    family = GaugeMetricFamily("rqsup_workers", "Worker processes by state.", labels=["state"])
    counts: dict[str, int] = dict.fromkeys(WORKER_STATES, 0)
    for worker in snapshot.workers:
        counts[worker.state] = counts.get(worker.state, 0) + 1
    for state, count in counts.items():
        family.add_metric([state], count)
    yield family
    yield _gauge("rqsup_workers_target", "Worker processes wanted.", snapshot.target)
    yield _gauge("rqsup_workers_ready", "Worker processes that can take jobs.", snapshot.ready)
    yield _gauge("rqsup_workers_configured", "Worker processes in the configuration.", snapshot.configured)
    memory = sum(worker.memory_bytes for worker in snapshot.workers)
    yield _gauge("rqsup_workers_memory_bytes", "Private memory of all workers together.", memory)


def _jobs(snapshot: Snapshot) -> Iterator[Metric]:
    family = CounterMetricFamily("rqsup_jobs", OUTCOMES_HELP, labels=["outcome"])
    for outcome in OUTCOMES:
        family.add_metric([outcome], snapshot.counters.get(outcome, 0))
    yield family
    for key, name, text in COUNTERS:
        yield CounterMetricFamily(name, text, value=snapshot.counters.get(key, 0))
    if snapshot.recoveries:
        seconds = snapshot.recoveries[-1].back_after_ms / 1000
        yield _gauge("rqsup_recovery_seconds", "Last time from a worker's death to its jobs being back.", seconds)


def _master(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("rqsup_redis_up", "1 while Redis answers, else 0.", int(snapshot.redis_ok))
    yield _gauge("rqsup_degraded", "1 while workers cannot be kept running, else 0.", int(bool(snapshot.degraded)))
    yield _gauge(
        "rqsup_shedding", "1 while workers take no jobs because memory is short.", int(bool(snapshot.shedding))
    )
    yield _gauge(
        "rqsup_generation", "Generation of the code that new workers run; a reload adds 1.", snapshot.generation
    )
    yield _gauge("rqsup_uptime_seconds", "Seconds since the master started.", snapshot.uptime_s)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
