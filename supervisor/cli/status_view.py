"""`rqsup status` for people: a few lines about the pool, then one line for each worker."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rqsup.supervisor.snapshot import Snapshot, WorkerView

#: Terminal width from which job ids are shown whole; below, their random last characters tell them apart.
WIDE = 112
JOB_ID_TAIL = 8

STYLES = {
    "running": "green", "idle": "green", "busy": "bold green", "degraded": "bold red", "dying": "red",
    "starting": "yellow", "reloading": "yellow", "upgrading": "yellow", "quiet": "yellow", "draining": "yellow", "stopping": "yellow",
    "shedding": "bold yellow",
}  # fmt: skip


def show(snapshot: Snapshot, console: Console) -> None:
    """Print the whole status."""
    for line in _headline(snapshot):
        console.print(line, highlight=False, soft_wrap=False)
    console.print()
    console.print(_table(snapshot.workers, wide=console.width >= WIDE))


def _headline(snapshot: Snapshot) -> Iterator[Text]:
    yield Text.assemble(
        "pool ", (snapshot.pool, "bold"), " is ", (snapshot.state, STYLES.get(snapshot.state, "")),
        f": {snapshot.ready}/{snapshot.target} ready, {snapshot.busy} busy, generation {snapshot.generation}, ",
        f"up {duration(snapshot.uptime_s)}, pid {snapshot.pid}",
    )  # fmt: skip
    if snapshot.target_by == "operator":
        yield Text(
            f"scaled by hand to {snapshot.target}, configured are {snapshot.configured}: ends with rqsup scale --reset"
        )
    elif snapshot.target_by == "autoscale":
        yield Text(f"autoscale wants {snapshot.target} workers now, configured are {snapshot.configured}")
    if snapshot.shedding:
        yield Text.assemble(("takes no jobs: ", "bold yellow"), snapshot.shedding)
    if snapshot.degraded:
        yield Text.assemble(("degraded: ", "bold red"), snapshot.degraded)
    redis = ("ok", "green") if snapshot.redis_ok else (f"away ({snapshot.redis_fault or 'no answer yet'})", "bold red")
    yield Text.assemble(f"redis {snapshot.redis_url}, namespace {snapshot.namespace}: ", redis)
    yield Text(_jobs(snapshot))
    if snapshot.metrics_address:
        yield Text(f"metrics http://{snapshot.metrics_address}/metrics")
    if snapshot.sandbox:
        yield Text.assemble("sandbox ", *_walls(snapshot))
    if snapshot.last_reload:
        yield Text(f"last reload: {snapshot.last_reload}")
    if snapshot.last_upgrade:
        yield Text(f"last upgrade: {snapshot.last_upgrade}")


def _walls(snapshot: Snapshot) -> Iterator[Text]:
    """Which walls sandboxed jobs have on this machine, and why the others are missing."""
    for number, wall in enumerate(snapshot.sandbox):
        missing = Text.assemble((f"{wall.name} MISSING", "bold red"), f" ({wall.detail})")
        # The limits are in the configuration; a version is not.
        extra = f" ({wall.detail})" if wall.name == "landlock" else ""
        yield Text.assemble(", " if number else "", f"{wall.name}{extra}" if wall.in_force else missing)


def _jobs(snapshot: Snapshot) -> str:
    counts = [f"{snapshot.counters.get(name, 0):,} {name}" for name in ("succeeded", "retried", "buried", "crashed")]
    text = "jobs " + ", ".join(counts)
    if snapshot.recoveries:
        text += f"; last recovery {snapshot.recoveries[-1].back_after_ms:.1f} ms"
    return text


def _table(workers: list[WorkerView], *, wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("#", "pid", "gen"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("task", overflow="ellipsis")  # the only one that gives way on a narrow terminal
    table.add_column("job", no_wrap=True)
    for name in ("for", "age", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in sorted(workers, key=lambda worker: (worker.number, worker.generation)):
        table.add_row(*_cells(worker, wide=wide))
    return table


def _cells(worker: WorkerView, *, wide: bool) -> Iterator[Text]:
    yield Text(str(worker.number))
    yield Text(str(worker.pid) if worker.pid else "-")
    yield Text(str(worker.generation))
    yield Text(worker.state, STYLES.get(worker.state, ""))
    yield Text(worker.task or "-")
    job = worker.job_id or "-" if worker.jobs <= 1 else f"{worker.jobs} jobs"
    yield Text(job if wide or len(job) <= JOB_ID_TAIL else f"…{job[-JOB_ID_TAIL:]}")
    yield Text("-" if worker.job_age_s is None else duration(worker.job_age_s))
    yield Text(duration(worker.age_s))
    yield Text(f"{worker.memory_bytes / 2**20:.1f} MiB" if worker.memory_bytes else "-")


def duration(seconds: float) -> str:
    """A length of time in its two largest units.

    >>> duration(7384)
    '2h 3m'
    >>> duration(4.26)
    '4.3s'
    """
    if seconds < 10:
        return f"{seconds:.1f}s"
    total = int(seconds)
    for size, unit, smaller, smaller_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if total >= size:
            return f"{total // size}{unit} {total % size // smaller}{smaller_unit}"
    return f"{total}s"
