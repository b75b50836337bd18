"""What the `admin` commands print for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rqsup.inspect import DeadLetter, KeyStats, PeekedJob, Report, Stats
from rqsup.job import LEVEL_LABELS, JobRecord

#: Width of an id that rqsup made.
ID_WIDTH = 36
#: Characters of a job's call in a table; `--json` shows more.
CALL_SHOWN = 40


def show_stats(stats: Stats, console: Console) -> None:
    """Queues by level, totals, workers, counters."""
    queues = _table("Queue", *(f">{label.replace('_', ' ')}" for label in LEVEL_LABELS), ">oldest")
    for queue in stats.queues:
        queues.add_row(queue.name, *(_count(queue.ready[label]) for label in LEVEL_LABELS), age(queue.oldest_s))
    console.print(queues if stats.queues else "No queue has held a job yet.")
    console.print(f"\nscheduled {stats.scheduled:,}   active {stats.active:,}   dead {stats.dead:,}\n")
    workers = _table("Worker", ">jobs", ">beats", "state")
    for worker in stats.workers:
        state = "waiting" if worker.waiting else "no news" if worker.details is None else "working"
        workers.add_row(worker.id, _count(worker.holds), f"{worker.beats:,}", state)
    console.print(workers if stats.workers else "No worker is registered.")
    if stats.counters:
        console.print(
            "\nSo far: " + ", ".join(f"{name} {count:,}" for name, count in stats.counters.items()), highlight=False
        )


def show_keys(rows: Sequence[KeyStats], console: Console) -> None:
    """Keys with type and size."""
    table = _table("Key", "type", ">entries", ">bytes")
    for row in rows:
        table.add_row(_safe(row.key), row.kind, f"{row.entries:,}", "" if row.bytes is None else f"{row.bytes:,}")
    console.print(table)


def show_peek(queue: str, jobs: Sequence[PeekedJob], console: Console) -> None:
    """The next jobs."""
    if not jobs:
        console.print(f"Queue {queue} holds no ready job.", highlight=False)
        return
    table = _table("Job", "level", ">age", ">tries", "call")
    for job in jobs:
        call = f"{job.task}({job.arguments})" if job.task else "(unreadable)"
        table.add_row(_safe(job.id), job.level, age(job.age_s), str(job.attempts), _safe(_short(call)))
    console.print(table)


def show_letters(letters: Sequence[DeadLetter], console: Console) -> None:
    """Dead letters, one line each."""
    if not letters:
        console.print("No dead letters.")
        return
    # Not a table: ids and times fill 80 columns, and a reason is a sentence.
    for letter in letters:
        task, died = letter.task or "(unreadable)", moment(letter.dead_at_ms)
        line = f"{_plain(letter.id)}  {task}  died {died} UTC after {letter.attempts} attempt(s)"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"    {_plain(letter.reason)}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nOne in full: rqsup admin dlq show ID", highlight=False)


def show_letter(letter: DeadLetter, console: Console) -> None:
    """One dead letter in full."""
    values = {
        "job": letter.id, "task": letter.task, "queue": letter.queue, "reason": letter.reason, "error": letter.error_type,
        "message": letter.error_message, "died": f"{moment(letter.dead_at_ms)} UTC", "attempts": letter.attempts,
        "crash": letter.crash, "worker": letter.worker, "host": letter.host, "payload": letter.payload,
    }  # fmt: skip
    _show_values(values, console)
    _show_stack(letter.traceback, console)
    _show_stack(letter.stack, console)


def show_report(report: Report, console: Console) -> None:
    """The checker's findings in words."""
    seen = ", ".join(f"{kind} {count:,}" for kind, count in report.counts.items())
    for gap in report.gaps:
        console.print(f"Not checked: {gap}", markup=False, highlight=False, soft_wrap=True)
    for fault in report.faults:
        console.print(f"{_plain(fault.id)} {fault.message}", markup=False, highlight=False, soft_wrap=True)
    verdict = f"{len(report.faults)} fault(s)" if report.faults else "every job is in exactly one place"
    console.print(f"{verdict} ({seen})", markup=False, highlight=False, soft_wrap=True)


def show_job(record: JobRecord, console: Console) -> None:
    """One job's record; what it does not have is left out."""
    values: dict[str, Any] = asdict(record)
    for name in ("envelope", "result"):
        values[name] = (values[name] or b"").decode("utf-8", "backslashreplace")
    for name in [name for name in values if name.endswith("_at") and values[name]]:
        values[name] = f"{moment(values[name])} UTC"
    # Always shown, a 0 too: what failed by itself, what killed its worker, what was handed back uncharged.
    values |= {name: str(values[name]) for name in ("errors", "crashes", "returns")}
    stacks = [_take_out(values, "error", "traceback"), _take_out(values, "crash", "stack")]
    _show_values(values, console)
    for stack in stacks:
        _show_stack(stack, console)


def age(seconds: float | None) -> str:
    """A length of time, short enough for a table.

    >>> age(75)
    '1m 15s'
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    return f"{minutes // 60}h {minutes % 60}m" if minutes < 2880 else f"{minutes // 1440}d"


def moment(ms: int) -> str:
    """A time of the server's clock, in UTC.

    >>> moment(1_700_000_000_000)
    '2023-11-14 22:13:20'
    """
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ms)


def _take_out(values: dict[str, Any], name: str, part: str) -> str | None:
    """The long text inside a value, which is then shown below the others."""
    inner = values[name]
    if not inner or part not in inner:
        return None
    values[name] = {key: value for key, value in inner.items() if key != part}
    return str(inner[part])


def _show_stack(stack: str | None, console: Console) -> None:
    if stack:
        console.print()
        console.print(_plain(stack.rstrip()), markup=False, highlight=False, soft_wrap=True)


def _show_values(values: dict[str, Any], console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        if value:
            table.add_row(name, _safe(str(value)))
    console.print(table)


def _table(*headings: str) -> Table:
    """A table; a heading that starts with `>` is of numbers. Ids are folded rather than cut: they are copied."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        numeric = heading.startswith(">")
        width = ID_WIDTH if heading == "Job" else None
        table.add_column(
            heading.lstrip(">"),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
            min_width=width,
        )
    return table


def _count(number: int) -> str:
    return f"{number:,}" if number else "·"


def _short(call: str) -> str:
    return call if len(call) <= CALL_SHOWN else call[: CALL_SHOWN - 1] + "…"


def _safe(value: str) -> str:
    return escape(_plain(value))


def _plain(value: str) -> str:
    """Foreign text, made harmless for a terminal."""
    value = value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in value)
