"""The log in a file: opened to append, and followed when a rotation renames it."""

from __future__ import annotations

import os

from rqsup.errors import ConfigError

#: Readable by the group, such as `adm`.
MODE = 0o640


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
