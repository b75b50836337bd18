"""systemd's memory pressure watch: it names a file and what to write into it, and then the kernel rings.

systemd 254 and later set MEMORY_PRESSURE_WATCH and MEMORY_PRESSURE_WRITE for each unit (systemd's "Memory
Pressure Handling"): a pressure file of the kernel (PSI), in which a threshold is written, or a FIFO or a
Unix socket, by which anybody else may ring.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import select
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

#: A path by which an operator says that no reaction is wanted.
NOWHERE = "/dev/null"
#: Most bytes read at once from what may be a FIFO or a socket: their number has no meaning.
CHUNK_BYTES = 4096


class MemoryWatch:
    """Calls `on_ring` from the loop each time the watch rings, until `close`."""

    def __init__(self, path: str, threshold: bytes, on_ring: Callable[[], None]) -> None:
        self.path = path
        self._threshold = threshold
        self._on_ring = on_ring
        self._descriptor = -1
        self._epoll: select.epoll | None = None

    @classmethod
    def from_environment(
        cls, on_ring: Callable[[], None], environ: Mapping[str, str] = os.environ
    ) -> MemoryWatch | None:
        """The watch that systemd asks for; None = it asks for none, or for something that cannot be read."""
        path = environ.get("MEMORY_PRESSURE_WATCH", "")
        try:
            threshold = base64.b64decode(environ.get("MEMORY_PRESSURE_WRITE", ""), validate=True)
        except binascii.Error:
            return None
        return cls(path, threshold, on_ring) if path.startswith("/") and path != NOWHERE else None

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
            self._listen(is_pressure_file=stat.S_ISREG(kind))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Listen no longer; the kernel forgets the threshold."""
        if self._descriptor < 0:
            return
        loop = asyncio.get_running_loop()
        if self._epoll:
            loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _listen(self, *, is_pressure_file: bool) -> None:
        loop = asyncio.get_running_loop()
        if not is_pressure_file:
            loop.add_reader(self._descriptor, self._read)
            return
        # A pressure file can be read at any time; it rings by POLLPRI, which asyncio cannot wait for. An epoll
        # inside the loop's one can: it becomes readable when it has something to tell.
        self._epoll = select.epoll()
        self._epoll.register(self._descriptor, select.EPOLLPRI)
        loop.add_reader(self._epoll.fileno(), self._ring_by_kernel)

    def _ring_by_kernel(self) -> None:
        events = self._epoll.poll(0) if self._epoll else []
        if any(event & select.EPOLLERR for _, event in events):
            # The cgroup is gone; there is nothing to listen to, and the loop would be woken for ever.
            self.close()
        elif events:
            self._on_ring()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_ring()
        else:
            self.close()


def _open(path: str) -> int:
    # For reading and writing: a FIFO then has no end while nobody writes.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _connect(path: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as connection:
        connection.connect(path)
        return connection.detach()
