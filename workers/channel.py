"""The socket between one worker and its master: news upward, a wake-up downward.

The order itself stands in the slot; a byte from the master only says "look". The end of the
channel means that the master is gone.
"""

from __future__ import annotations

import socket

#: Worker to master: the application is ready, the loop begins.
READY = b"R"
#: Worker to master: it will not become ready; the reason follows.
UNFIT = b"F"
#: Most bytes of one message.
MESSAGE_BYTES = 2048
#: Master to worker: there is a new order in the slot.
LOOK = b"L"


class Channel:
    """The worker's end."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor, to wait on."""
        return self._socket.fileno()

    def say_ready(self) -> None:
        """Tell the master that this worker can take jobs."""
        self._socket.send(READY)

    def say_unfit(self, reason: str) -> None:
        """Tell the master why this worker will not become ready."""
        self._socket.send((UNFIT + reason.encode("utf-8", "backslashreplace"))[:MESSAGE_BYTES])

    def read(self) -> bool:
        """Take in what the master sent; False when the master is gone."""
        try:
            while data := self._socket.recv(64):
                del data
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False
