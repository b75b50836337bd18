"""What a worker's jobs print, as lines with their job: pure, without pipes and logs.

Whose line it is: a line of Python's `print` (and anything else through `sys.stdout` or `sys.stderr`) stands
after a mark that the worker wrote, so its job is certain. Lines of C code and of programs come without marks:
they belong to the job that the worker is in when the master reads them, a moment after they were written.
"""

from __future__ import annotations

from dataclasses import dataclass

from rqsup.workers.output import mark_of
from rqsup.workers.slot import TEXT_BYTES, CurrentJob

#: Most bytes of a mark with its id and task: a mark in the last so many of an unfinished line may still be incomplete.
MARK_ROOM = 3 * TEXT_BYTES
CUT = " ...[cut]"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that may pass. `job_id` and `task` are empty when it was printed between jobs."""

    text: str
    job_id: str
    task: str


class Allowance:
    """So many lines per second, and as many at once."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._left = per_s
        self._seen_at = 0.0

    def take(self, now: float) -> bool:
        """Let one more line pass, if there is one left."""
        if not self.has(now):
            return False
        self._left -= 1
        return True

    def has(self, now: float) -> bool:
        """True when one more line may pass; `now` is CLOCK_MONOTONIC."""
        self._left = min(self.per_s, self._left + (now - self._seen_at) * self.per_s)
        self._seen_at = now
        return self._left >= 1


@dataclass(frozen=True, slots=True)
class Remains:
    """What a splitter holds between two reads: enough for another one to go on."""

    rest: bytes = b""
    passing_over: bool = False
    marked: str = ""


class Splitter:
    """Turns the bytes of one worker's pipe into lines, as many as allowed.

    `dropped` counts the lines that were not. A flood costs one search for line breaks per read, not work per line.
    """

    def __init__(self, secret: str, line_bytes: int, own: Allowance, shared: Allowance) -> None:
        self._mark = mark_of(secret)
        self._line_bytes = line_bytes
        self._own = own
        self._shared = shared
        self._rest = b""
        #: True while the rest of a line that was cut is passed over.
        self._passing_over = False
        self._marked = ""
        self.dropped = 0

    def remains(self) -> Remains:
        """What it holds now."""
        return Remains(self._rest, self._passing_over, self._marked)

    def resume(self, remains: Remains) -> None:
        """Go on where another splitter of the same pipe stopped."""
        self._rest, self._passing_over, self._marked = remains.rest, remains.passing_over, remains.marked

    def feed(self, data: bytes, now: float, job: CurrentJob | None) -> list[Line]:
        """The lines that these bytes complete; `job` is the one the worker is in now."""
        data = self._rest + data
        lines: list[Line] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if not self._own.has(now):
                start = self._drop(data, start)
                break
            lines += self._line(data[start:end], now, job)
            self._passing_over = False
            start = end + 1
        self._rest = data[start:]
        if len(self._rest) > self._line_bytes and self._mark not in self._rest[-MARK_ROOM:]:
            lines += self._line(self._rest, now, job)
            self._rest, self._passing_over = self._rest[-len(self._mark) :], True
        return lines

    def _drop(self, data: bytes, start: int) -> int:
        """Drop all whole lines from here on at once; returns where the unfinished one begins."""
        after = data.rfind(b"\n") + 1
        self.dropped += data.count(b"\n", start, after) - data.count(self._mark, start, after)
        self._passing_over = False
        for mark in self._marks(data, start, after):
            self._remember(data[mark + len(self._mark) : data.find(b"\n", mark)])
        return after

    def _marks(self, data: bytes, start: int, end: int) -> list[int]:
        """Where the marks stand that matter: those that tell of lost lines, and the last of a job."""
        found, losses = [], self._mark + b" "
        at = data.find(losses, start, end)
        while at >= 0:
            found.append(at)
            at = data.find(losses, at + 1, end)
        last = data.rfind(self._mark, start, end)
        while last in found:
            last = data.rfind(self._mark, start, last)
        return [*found, last] if last >= 0 else found

    def end(self, now: float, job: CurrentJob | None) -> list[Line]:
        """The worker is gone: what it left without a line break."""
        rest, self._rest = self._rest, b""
        return self._line(rest, now, job) if rest else []

    def _line(self, raw: bytes, now: float, job: CurrentJob | None) -> list[Line]:
        """The text of one raw line, which may have a mark behind it."""
        text, mark, marked = raw.partition(self._mark)
        lines = self._pass(text, now, job) if (text or not mark) and not self._passing_over else []
        if mark:
            self._remember(marked)
        return lines

    def _remember(self, marked: bytes) -> None:
        if marked.startswith(b" "):
            # Of lines that the full pipe did not take: the worker's own count.
            self.dropped += int(marked) if marked.strip().isdigit() else 0
            return
        self._marked = marked[:MARK_ROOM].decode("utf-8", "replace")

    def _pass(self, text: bytes, now: float, job: CurrentJob | None) -> list[Line]:
        if not (self._own.take(now) and self._shared.take(now)):
            self.dropped += 1
            return []
        cut = len(text) > self._line_bytes
        plain = text[: self._line_bytes].decode("utf-8", "replace").rstrip("\r") + (CUT if cut else "")
        if self._marked:
            job_id, _, task = self._marked.partition(" ")
            return [Line(plain, job_id, task)]
        return [Line(plain, job.id if job else "", job.task if job else "")]
