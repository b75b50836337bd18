"""The worker's end of its output pipe: what jobs print goes to the master, marked with the job's id.

Descriptors 1 and 2 are the pipe, so C code and programs that a job starts are captured too. Python's
`sys.stdout` and `sys.stderr` do more: they write the job in front, once per job that prints, so
that even lines of jobs that last microseconds are told apart. A job that prints nothing pays nothing.
They also never wait: what the full pipe of a master that stands still does not take is counted and dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final

from rqsup import logs
from rqsup.workers.kernel import LIBC

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Begins each mark; after it come the worker's secret, the job's id and its task. A job cannot guess the secret of its neighbour.
MARK_BYTE: Final = b"\x1e"
#: A text without a line break goes out in pieces of this size; the kernel does not mix pieces of up to 4096 bytes.
PIECE_BYTES = 3584
#: A pipe that is writable at all takes so much at once, and keeps it together (PIPE_BUF in pipe(7)).
ATOMIC_BYTES = 4096
#: Lowest number for the duplicate of standard error, out of the way of programs that count on low ones.
KEPT_FD = 20
#: stdio.h: line buffering.
_IOLBF = 1


def mark_of(secret: str) -> bytes:
    """What stands before a job's id in the pipe of the worker with this secret."""
    return MARK_BYTE + secret.encode() + b":"


def lost_mark(secret: str, lines: int) -> bytes:
    """Says in the pipe that so many lines did not get into it: a mark with a number where others have an id."""
    return mark_of(secret) + b" %d\n" % lines


class Voice:
    """Which job speaks. The runner calls `begin` and `end` around each; both are a few plain stores."""

    def __init__(self, secret: str = "", *, fd: int = 1) -> None:
        self._fd = fd
        self._secret = secret
        self._mark = mark_of(secret)
        self._streams: list[JobStream] = []
        self._job: tuple[str, str] | None = None
        self._told = False
        #: Lines that the pipe did not take, not told yet; and whether the last one that it took lacks its end.
        self._lost = 0
        self._torn = False
        self._pipe = os.fstat(fd).st_ino
        self._polls: dict[int, select.poll] = {}
        #: True when a stream holds text, or the pipe a mark without its end.
        self.dirty = False

    def begin(self, job_id: str, task: str) -> None:
        """The text from here on is this job's."""
        self._job = (job_id, task)

    def end(self) -> None:
        """The job is over: what it left unfinished goes out, then an empty mark."""
        if self.dirty:
            for stream in self._streams:
                stream.emit()
            self._told = False
            # Without room for the mark, the next job's end tries again.
            self.dirty = not self._write(self._fd, self._mark + b"\n")
        self._job = None

    def end_abruptly(self) -> None:
        """The job's own process died: it may have left a mark behind, and lines after it would pass for its own."""
        if self._streams:
            self.dirty = not self._write(self._fd, self._mark + b"\n")

    def broke_off(self) -> None:
        """A forked process that spoke here died: the job whose mark may stand has ended."""
        self.dirty = True
        self.end()

    def add(self, stream: JobStream) -> None:
        """Have this stream's text marked."""
        self._streams.append(stream)

    def say(self, fd: int, text: bytes) -> None:
        """Send a stream's text after the job's mark, where one is due."""
        due = not self._told and self._job is not None
        if due:
            self.dirty = True
        if self._write(fd, (self._mark + " ".join(self._job or ()).encode() + b"\n" if due else b"") + text):
            self._told = self._told or due
        else:
            self._lost += text.count(b"\n")

    def _write(self, fd: int, data: bytes) -> bool:
        """Send bytes with what was not told yet before them; False when they did not all get into the pipe."""
        lost, torn = self._lost, self._torn
        untold = (b"\n" if torn else b"") + (lost_mark(self._secret, lost) if lost else b"")
        view = memoryview(untold + data)
        # A job may close its descriptors, and the master may be gone: neither is an error of what it prints.
        with contextlib.suppress(OSError):
            while view:
                if not self._has_room(fd):
                    return False
                view = view[os.write(fd, view[:ATOMIC_BYTES]) :]
                # The first piece holds all that was untold.
                self._lost, self._torn = 0, bool(view)
        return True

    def _has_room(self, fd: int) -> bool:
        poll = self._polls.get(fd)
        if poll is None:
            poll = self._polls[fd] = select.poll()
            poll.register(fd, select.POLLOUT)
        # Where a job redirected its descriptors to, it may wait as it likes.
        return bool(poll.poll(0)) or os.fstat(fd).st_ino != self._pipe


class JobStream(io.RawIOBase):
    """One of Python's two streams: whole lines to the pipe. No lock: one held at a job's fork would stop its child."""

    def __init__(self, fd: int, voice: Voice) -> None:
        super().__init__()
        self._fd = fd
        self._voice = voice
        self._held = bytearray()
        voice.add(self)

    def fileno(self) -> int:
        """The descriptor, for programs that the job starts."""
        return self._fd

    @property
    def name(self) -> str:
        """As Python's own streams have it."""
        return {1: "<stdout>", 2: "<stderr>"}.get(self._fd, str(self._fd))

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Take text; it goes out at each line's end."""
        piece = bytes(data)
        self._held += piece
        self._voice.dirty = True
        if b"\n" in piece or len(self._held) > PIECE_BYTES:
            self.emit()
        return len(piece)

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            self.emit()

    def emit(self) -> None:
        """Send what is held, with the job's mark where one is due."""
        held, self._held = self._held, bytearray()
        if held:
            self._voice.say(self._fd, bytes(held))


def capture(pipe: int, secret: str) -> Voice:
    """Make the pipe this process's standard output and error; the worker's own log keeps the real one."""
    logs.keep(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, KEPT_FD))
    for number in (1, 2):
        os.dup2(pipe, number)
    os.close(pipe)
    voice = Voice(secret)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(JobStream(fd, voice), encoding="utf-8", errors="backslashreplace", write_through=True)
        for fd in (1, 2)
    )
    _unbuffer_c()
    return voice


def _unbuffer_c() -> None:
    """Have C code's printf come out at each line's end, not when its buffer is full, in some later job."""
    LIBC.setvbuf(ctypes.c_void_p.in_dll(LIBC, "stdout"), None, _IOLBF, 0)
