"""The master's end of the workers' output pipes: always emptied, so that no job waits to print.

The master reads as long as its loop turns, also what it then throws away. Only while the master itself is
stopped can a pipe fill up, and then a job that prints waits for it; its timeouts go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from rqsup import logs
from rqsup.settings import OutputSettings, Settings
from rqsup.supervisor.output import Allowance, Line, Remains, Splitter
from rqsup.supervisor.ports.journal import Journal
from rqsup.workers.assignment import Assignment
from rqsup.workers.slot import Slot

#: Bytes taken from one pipe in one turn of the loop, so that a flood does not hold up the rest of the master.
READ_BYTES = 65_536
#: MESSAGE_ID of a job's line in the journal; `journalctl MESSAGE_ID=…` finds them all.
MESSAGE_ID = "c40276c128b34be3bb0429b8ef459674"
#: Seconds between two lines of one worker that say how many were dropped.
TELL_DROPPED_S = 1.0


class OutputPipe:
    """One worker's pipe. `descriptor` is the end to read; `its` the other, closed once the worker has it, -1 from then on."""

    def __init__(
        self, splitter: Splitter, assignment: Assignment, slot: Slot, sink: Sink, *, descriptor: int, its: int = -1
    ) -> None:  # fmt: skip
        self.descriptor, self.its = descriptor, its
        # Of our end only: a program's own end must block, or its prints would fail with EAGAIN.
        os.set_blocking(descriptor, False)
        self._size = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
        self._splitter = splitter
        self._assignment = assignment
        self._slot = slot
        self._sink = sink
        #: Dropped lines that are in the counters, and that the log tells of.
        self._counted = 0
        self._told = 0
        self._timer: asyncio.TimerHandle | None = None

    def remains(self) -> Remains:
        """What was read and is no whole line yet; what was dropped is told now."""
        self._tell_dropped()
        return self._splitter.remains()

    def listen(self) -> None:
        """Have the loop empty the pipe from now on."""
        asyncio.get_running_loop().add_reader(self.descriptor, self._read)

    def release(self) -> None:
        """The worker has its end, or never will."""
        if self.its >= 0:
            os.close(self.its)
            self.its = -1

    def close(self) -> None:
        """The worker is gone: take what is left, at most one pipe full (a stray child may go on), and close."""
        self.release()
        taken = 0
        while taken < self._size and (count := self._read()):
            taken += count
        job = self._slot.current_job()
        self._sink.take(self._splitter.end(time.monotonic(), job), self._assignment)
        self._count_dropped()
        self._tell_dropped()
        asyncio.get_running_loop().remove_reader(self.descriptor)
        os.close(self.descriptor)

    def _read(self) -> int:
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            asyncio.get_running_loop().remove_reader(self.descriptor)
            return 0
        now = time.monotonic()
        self._sink.take(self._splitter.feed(data, now, self._slot.current_job()), self._assignment)
        self._count_dropped()
        return len(data)

    def _count_dropped(self) -> None:
        fresh, self._counted = self._splitter.dropped - self._counted, self._splitter.dropped
        if fresh:
            self._sink.count_dropped(fresh)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(TELL_DROPPED_S, self._tell_dropped)

    def _tell_dropped(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._sink.tell_dropped(self._splitter.dropped - self._told, self._assignment)
            self._told = self._splitter.dropped


class Sink:
    """Where jobs' lines go: to the journal with fields when it reads our standard error, else to the log."""

    def __init__(self, settings: Callable[[], Settings], counters: dict[str, int]) -> None:
        self._settings = settings
        self._counters = counters
        self._journal = _find_journal(settings(), os.environ)
        self._shared = Allowance(settings().output.pool_lines_per_s)
        self._log = logs.get_logger("job")

    def open(self, assignment: Assignment, slot: Slot, output: OutputSettings) -> OutputPipe:
        """A pipe for a worker that is about to be forked."""
        self._shared.per_s = output.pool_lines_per_s
        own = Allowance(output.lines_per_s)
        splitter = Splitter(assignment.mark, output.line_bytes, own, self._shared)
        descriptor, its = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # more than an unprivileged user may have: it keeps the default, 64 KiB
            fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, output.pipe_bytes)
        return OutputPipe(splitter, assignment, slot, self, descriptor=descriptor, its=its)

    def resume(self, assignment: Assignment, slot: Slot, descriptor: int, remains: Remains) -> OutputPipe:
        """The pipe of a worker that the program before this one had forked."""
        output = self._settings().output
        splitter = Splitter(assignment.mark, output.line_bytes, Allowance(output.lines_per_s), self._shared)
        splitter.resume(remains)
        return OutputPipe(splitter, assignment, slot, self, descriptor=descriptor)

    def take(self, lines: list[Line], assignment: Assignment) -> None:
        """Pass lines on."""
        for line in lines:
            if self._journal is None:
                self._log.info("output", text=line.text, **_named(line, assignment))
            elif not self._journal.send(self._entry(line, assignment)):
                self._counters["output_dropped"] += 1
                continue
            self._counters["output_lines"] += 1

    def count_dropped(self, count: int) -> None:
        """So many lines were over a limit."""
        self._counters["output_dropped"] += count

    def tell_dropped(self, count: int, assignment: Assignment) -> None:
        """Say in the log how many lines of a worker were dropped since this was last said."""
        self._log.warning(
            "output dropped: more than output.lines_per_s or output.pool_lines_per_s allow",
            lines=count, worker=assignment.number,
        )  # fmt: skip

    def _entry(self, line: Line, assignment: Assignment) -> Mapping[str, str]:
        pool = self._settings().pool
        fields = {
            "MESSAGE": line.text, "PRIORITY": "6", "SYSLOG_IDENTIFIER": f"rqsup-{pool}", "MESSAGE_ID": MESSAGE_ID,
            "RQSUP_POOL": pool, "RQSUP_WORKER": str(assignment.number), "RQSUP_GENERATION": str(assignment.generation),
        }  # fmt: skip
        return fields | {
            name: value for name, value in (("RQSUP_JOB", line.job_id), ("RQSUP_TASK", line.task)) if value
        }


def _named(line: Line, assignment: Assignment) -> dict[str, Any]:
    named: dict[str, Any] = {"worker": assignment.number, "generation": assignment.generation}
    return named | {name: value for name, value in (("job_id", line.job_id), ("task", line.task)) if value}


def _find_journal(settings: Settings, environ: Mapping[str, str]) -> Journal | None:
    """The journal, if it reads our standard error and information is wanted there."""
    wanted = not settings.log.file and settings.log.level in {"debug", "info"}
    return Journal() if wanted and logs.journal_reads(2, environ) else None
