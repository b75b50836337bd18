"""systemd's journal, spoken to directly: a line with fields of our own, one datagram each, never blocking."""

from __future__ import annotations

import socket
from collections.abc import Mapping

#: Where journald listens (systemd-journald.service(8)).
JOURNAL_SOCKET = "/run/systemd/journal/socket"


class Journal:
    """Sends entries by journald's native protocol."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one entry; False when the journal does not take it now."""
        try:
            self._socket.sendto(encode(fields), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def encode(fields: Mapping[str, str]) -> bytes:
    """An entry as journald reads it: NAME=value lines, and values with line breaks with their length before them."""
    parts = []
    for name, value in fields.items():
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
