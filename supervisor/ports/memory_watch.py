"""systemd's memory pressure watch: it names a file and what to write into it, and then the kernel rings.

systemd 254 and later set MEMORY_PRESSURE_WATCH and MEMORY_PRESSURE_WRITE for each unit (systemd's "Memory
Pressure Handling"): a pressure file of the kernel (PSI), in which a threshold is written, or a FIFO or a
Unix socket, by which anybody else may ring.
"""

from __future__ import annotations

import base64
import binascii
import os
import select
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

#: A path by which an operator says that no reaction is wanted.
NOWHERE = "/dev/null"
#: Most bytes read at once from what may be a FIFO or a socket: their number has no meaning.
CHUNK_BYTES = 4096


class MemoryWatch:
    """Asked now and then whether it rang; what rings meanwhile is kept by the kernel."""

    def __init__(self, path: str, threshold: bytes) -> None:
        self.path = path
        self._threshold = threshold
        self._descriptor = -1
        self._poll = select.poll()
        self._event = select.POLLIN

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> MemoryWatch | None:
        """The watch that systemd asks for; None = it asks for none, or for something that cannot be read."""
        path = environ.get("MEMORY_PRESSURE_WATCH", "")
        try:
            threshold = base64.b64decode(environ.get("MEMORY_PRESSURE_WRITE", ""), validate=True)
        except binascii.Error:
            return None
        return cls(path, threshold) if path.startswith("/") and path != NOWHERE else None

    def arm(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the path cannot be opened, or the kernel takes no threshold from this user.
        """
        kind = Path(self.path).stat().st_mode
        self._descriptor = _connect(self.path) if stat.S_ISSOCK(kind) else _open(self.path)
        try:
            if self._threshold:
                os.write(self._descriptor, self._threshold)
        except OSError:
            self.close()
            raise
        # A pressure file can be read at any time, and rings by POLLPRI. Not in the loop's epoll: asyncio cannot wait
        # for that, and the kernel hands out each ring only once, to whoever looks first.
        self._event = select.POLLPRI if stat.S_ISREG(kind) else select.POLLIN
        self._poll.register(self._descriptor, self._event)

    def rang(self) -> bool:
        """Whether it rang since it was asked last; never blocks."""
        if self._descriptor < 0:
            return False
        events = sum(event for _, event in self._poll.poll(0))
        if not events & self._event:
            if events:
                # An error or the end of it: the cgroup, or who should have rung, is gone.
                self.close()
            return False
        return self._event == select.POLLPRI or self._drain()

    def close(self) -> None:
        """Listen no longer; the kernel forgets the threshold."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _drain(self) -> bool:
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
        except OSError:
            data = b""
        if not data:
            self.close()
        return bool(data)


def _open(path: str) -> int:
    # For reading and writing: a FIFO then has no end while nobody writes.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _connect(path: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as connection:
        connection.connect(path)
        return connection.detach()
