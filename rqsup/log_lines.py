"""The way out of the log: whole lines to a descriptor, or to a file that is followed when a rotation renames it."""

from __future__ import annotations

import os
import select

from rqsup.errors import ConfigError

#: Readable by the group, such as `adm`.
MODE = 0o640
#: Longest wait for a reader that does not read, in ms; after one such wait lines are dropped at once.
STALL_MS = 100


class Lines:
    """The way out: whole lines to one file descriptor. `dropped` counts what could not be written."""

    __slots__ = ("_stalled", "_torn", "dropped", "fd", "path")

    def __init__(self, fd: int, path: str = "") -> None:
        self.fd = fd
        self.path = path
        self.dropped = 0
        self._stalled = False
        self._torn = False

    def write(self, line: bytes) -> None:
        """Write a line, or count it as dropped when the descriptor is closed, full or not read."""
        self.follow()
        # A line that was cut by a full pipe is ended first, so that this one stands alone.
        data = b"\n" + line if self._torn else line
        try:
            written = os.write(self.fd, data) if self._writable() else 0
        except (OSError, ValueError):
            written = 0  # counted below; there is no other place to tell it
        if written:
            self._torn = written < len(data)
        if written < len(data):
            self.dropped += 1

    def follow(self) -> None:
        """Go over to the file that has the path now, when the open one was renamed or removed."""
        if self.path:
            follow_file(self.fd, self.path)

    def _writable(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        self._stalled = not poll.poll(0 if self._stalled else STALL_MS)
        return not self._stalled

    # What structlog calls for each level.
    msg = log = debug = info = warn = warning = error = critical = fatal = exception = failure = write


def open_file(path: str) -> int:
    """Open the log file to append, making it if it is not there.

    Raises:
        ConfigError: it cannot be opened.
    """
    try:
        return _open(path)
    except OSError as fault:
        raise ConfigError(
            [f"log.file: {path} cannot be opened ({fault.strerror}): make its folder writable for this user"], "log"
        ) from fault


def follow_file(fd: int, path: str) -> None:
    """Have the descriptor mean the file that has this path now. Other processes that hold it see nothing of that."""
    try:
        there, here = os.stat(path), os.fstat(fd)  # noqa: PTH116 - on each line of the log, no path arithmetic
        if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
            return
    except FileNotFoundError:
        pass  # renamed, and nobody made a new one: that is for us to do
    except OSError:
        return  # a folder that was locked, or a closed descriptor: lines go where they went
    try:
        fresh = _open(path)
    except OSError:
        return  # the old file still takes lines; the next one tries again
    os.dup2(fresh, fd, inheritable=False)
    os.close(fresh)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
