"""What the demo shows: a live picture on a terminal, plain lines elsewhere, and the summary."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import click

from rqsup.supervisor.cli.demo.facts import Facts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from rqsup.supervisor.cli.demo.play import Outcome

#: Seconds between two plain lines.
LINE_EVERY_S = 2.0
#: Events that the live picture shows.
EVENTS = 5


class View(Protocol):
    """Shows what happens; both methods may be called from any thread."""

    def event(self, text: str) -> None:
        """One thing that happened."""

    def show(self, facts: Facts) -> None:
        """How it stands."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PlainView:
    """Lines: each event, and every few seconds how far it is."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def event(self, text: str) -> None:
        """Print it."""
        click.echo(printable(text))

    def show(self, facts: Facts) -> None:
        """Print a line, when the last one is some seconds old."""
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + LINE_EVERY_S
            click.echo(
                f"{facts.elapsed_s:6.1f} s  {progress_line(facts)}; {facts.counts.ready:,} ready, {facts.snapshot.busy} busy"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""


class LiveView:
    """A picture that is drawn anew in place."""

    def __init__(self, console: Console, directory: str) -> None:
        from rich.live import Live  # 3 MB that the master must not carry

        self._directory = directory
        self._events: list[str] = []
        self._closed = False
        self._live = Live(console=console, auto_refresh=False)

    def event(self, text: str) -> None:
        """Show it with the next picture, or as a line when there will be none."""
        if self._closed:
            click.echo(printable(text))
        self._events = [*self._events[1 - EVENTS :], printable(text)]

    def show(self, facts: Facts) -> None:
        """Draw."""
        self._live.update(self._picture(facts), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._closed = True

    def _picture(self, facts: Facts) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        total = max(facts.total, 1)
        bar = Table.grid(expand=True)  # alone, a bar does not end its line
        bar.add_row(ProgressBar(total=total, completed=min(facts.counts.ended, total)))
        return Group(
            Text(f"rqsup demo  {printable(self._directory)}", style="bold", no_wrap=True, overflow="ellipsis"),
            bar,
            Text(progress_line(facts), no_wrap=True, overflow="ellipsis"),
            _queues(facts),
            _workers(facts, self._directory),
            *(Text(event) for event in self._events),
        )


def progress_line(facts: Facts) -> str:
    """Done, pace and time left in words."""
    done, total = facts.counts.ended, facts.total
    if not facts.total_is_final:
        return f"{done:,} done of more than {total:,} (still counting), {facts.per_s:,.0f} jobs/s"
    left = "" if facts.left_s is None else f", {duration(facts.left_s)} left"
    return f"{done:,} of {total:,} done ({100 * done / max(total, 1):.0f} %), {facts.per_s:,.0f} jobs/s{left}"


def duration(seconds: float) -> str:
    """Time in words.

    >>> duration(0.4), duration(59.6), duration(7320)
    ('0 s', '1 min 00 s', '2 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def size(count: int) -> str:
    """Bytes in words.

    >>> size(999), size(1536), size(5 * 1024**3)
    ('999 B', '1.5 KiB', '5.0 GiB')
    """
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def printable(text: str) -> str:
    """The text without what could move a terminal's cursor: anybody can name a file."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _queues(facts: Facts) -> RenderableType:
    table = _table("queue", "ready", "running", "scheduled", "done", "dead", "retried", "recovered")
    counts = facts.counts
    numbers = (
        counts.ready,
        facts.snapshot.busy,
        counts.scheduled,
        counts.succeeded,
        counts.dead,
        counts.retried,
        counts.recovered,
    )
    table.add_row("files", *(f"{number:,}" for number in numbers))
    return table


def _workers(facts: Facts, directory: str) -> RenderableType:
    from rich.text import Text

    table = _table("worker", "pid", "state", "jobs", last="current job")
    for worker in facts.snapshot.workers:
        path = facts.files.get(worker.job_id or "", worker.job_id or "")
        shown = printable(os.path.relpath(path, directory) if path.startswith("/") else path)
        table.add_row(
            str(worker.number),
            str(worker.pid),
            worker.state,
            f"{worker.succeeded:,}",
            Text(shown, no_wrap=True, overflow="ellipsis"),
        )
    return table


def _table(first: str, *numbers: str, last: str | None = None) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=last is not None)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="left" if name == "state" else "right")
    if last:
        table.add_column(last, ratio=1)
    return table


def summary(outcome: Outcome, console: Console) -> None:
    """Print the table at the end."""
    from rich.text import Text

    table = _table("result", "")
    for name, value in _rows(outcome):
        table.add_row(name, Text(value))
    console.print(table)
    largest = _table("bytes", last="largest files")
    for count, path in sorted(outcome.tally.largest, reverse=True):
        largest.add_row(f"{count:,}", Text(printable(path), overflow="fold"))
    console.print(largest)
    console.print(Text(kill_line(outcome)), soft_wrap=not console.is_terminal)


def kill_line(outcome: Outcome) -> str:
    """What the kill came to, in a sentence or two."""
    hit = outcome.hit
    if hit is None:
        return "No kill hit a worker in a job, so no recovery was measured; run the demo again, or on larger files."
    return (
        f"Worker {hit.worker.id} (pid {hit.worker.pid}) was killed by SIGKILL in the middle of a job. "
        f"Its job was back in the queue after {hit.back_after_ms:.1f} ms, and then ran on worker {outcome.recovered_on}."
    )


def _rows(outcome: Outcome) -> list[tuple[str, str]]:
    seconds, counts = outcome.duration_s, outcome.counts
    return [
        ("files", f"{outcome.files:,}"),
        ("bytes", size(outcome.tally.size_bytes)),
        ("time", f"{seconds:.1f} s"),
        ("jobs/s", f"{outcome.tally.accepted / seconds:,.0f}"),
        ("succeeded", f"{outcome.tally.succeeded:,}"),
        ("retried", f"{counts.retried:,}"),
        ("recovered", f"{counts.recovered:,}"),
        ("dead", f"{outcome.tally.dead:,}"),
        ("lost", f"{outcome.lost:,}"),
    ]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The summary for programs."""
    tally, counts, hit = outcome.tally, outcome.counts, outcome.hit
    return {
        "jobs": tally.accepted,
        "succeeded": tally.succeeded,
        #: Attempts that ended in an error, whether they were repeated or not.
        "failed": counts.retried + counts.dead,
        "dead": tally.dead,
        "retried": counts.retried,
        "recovered": counts.recovered,
        "lost": outcome.lost,
        "duration_s": round(outcome.duration_s, 3),
        "jobs_per_s": round(tally.accepted / outcome.duration_s, 1),
        "recovery_ms": hit.back_after_ms if hit else None,
        "recovered_on": outcome.recovered_on,
        "killed_pid": hit.worker.pid if hit else None,
        "killed_worker": hit.worker.id if hit else None,
        "files": outcome.files,
        "bytes": tally.size_bytes,
        "unreadable": tally.unreadable + outcome.progress.unreadable,
        "refused": outcome.progress.refused,
        "encore_jobs": outcome.encore_jobs,
        "faults": outcome.faults,
        "largest": [{"path": path, "bytes": count} for count, path in sorted(tally.largest, reverse=True)],
    }
