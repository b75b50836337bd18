"""One consistent picture of the master and its workers: the source of `status`, metrics, titles and health."""

from __future__ import annotations

import msgspec

from rqsup.workers.isolation.protection import Protection

#: Format of the picture, for programs that read `rqsup status --json`.
VERSION = 1


class WorkerView(msgspec.Struct, frozen=True):
    """One worker at the moment of the picture."""

    number: int
    id: str
    pid: int
    generation: int
    #: starting | idle | busy | quiet | draining | dying
    state: str
    task: str | None
    job_id: str | None
    #: Seconds since the current job began.
    job_age_s: float | None
    #: Seconds since the worker was forked.
    age_s: float
    #: Private memory (USS) in bytes; 0 = not known yet.
    memory_bytes: int
    succeeded: int
    retried: int
    buried: int
    #: Jobs under way: more than one only with `workers.concurrency`; `task` and `job_id` then name one of them.
    jobs: int = 0


class RecoveryView(msgspec.Struct, frozen=True):
    """One death of a worker whose jobs went back to their queues."""

    worker: str
    number: int
    pid: int
    cause: str
    jobs: list[str]
    #: Ids that went to the dead letters: at the crash limit, or because an operator had the job killed.
    buried: list[str]
    #: Milliseconds from the moment the master saw the death until the jobs were back in their queues.
    back_after_ms: float
    #: Wall-clock time, seconds since the epoch; for display.
    at: float


class Snapshot(msgspec.Struct, frozen=True):
    """The master and its workers."""

    version: int
    pool: str
    namespace: str
    pid: int
    generation: int
    #: starting | running | degraded | upgrading | reloading | quiet | shedding | stopping
    state: str
    #: Workers wanted, workers ready to take jobs, workers inside a job.
    target: int
    ready: int
    busy: int
    uptime_s: float
    redis_url: str
    redis_ok: bool
    #: Why the last command to Redis failed; empty while redis_ok.
    redis_fault: str
    #: `host:port` of the HTTP port; empty when there is none.
    metrics_address: str
    #: What the last reload came to, in words; empty before the first.
    last_reload: str
    #: Why the pool is degraded; empty otherwise.
    degraded: str
    #: Totals since the master started, over all workers, living and dead:
    #: succeeded retried buried crashed returned recovered stale deaths restarts strangers beats_failed promoted reaped recycled memory_kills
    #: output_lines output_dropped upgrades
    counters: dict[str, int]
    workers: list[WorkerView]
    #: The latest recoveries, newest last, at most 50.
    recoveries: list[RecoveryView]
    #: Workers in the configuration, and who set the target: configuration | operator | autoscale.
    configured: int = 0
    target_by: str = "configuration"
    #: Why workers take no new jobs although nobody told them to; empty = they do.
    shedding: str = ""
    #: The walls of the sandbox, in force or not; empty when no task asks for one.
    sandbox: list[Protection] = []
    #: The longest that the master's loop was busy with itself between two waits.
    longest_turn_s: float = 0.0
    #: Version of rqsup that the master runs, and what the last upgrade in place came to; empty before the first.
    rqsup: str = ""
    last_upgrade: str = ""
