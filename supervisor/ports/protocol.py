"""The control protocol: one JSON object per line over a Unix socket.

request   {"v": 1, "command": "status", "arguments": {}}
answers   any number of {"progress": "text"}, then exactly one
          {"ok": true, "answer": {…}} or {"ok": false, "error": "text", "exit": <exit code>}
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

VERSION = 1
#: Most bytes of one request line.
REQUEST_LIMIT_BYTES = 64 * 1024
#: Most bytes of one answer line: the status of 1,000 workers has about 400 KiB.
ANSWER_LIMIT_BYTES = 8 * 1024 * 1024
#: The kernel's `struct ucred`: pid, uid, gid.
CREDENTIALS = struct.Struct("3i")


class Request(msgspec.Struct, frozen=True):
    """What a client asks."""

    command: str
    v: int = 0
    arguments: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the master: a sign of progress while `ok` is None, otherwise the end."""

    ok: bool | None = None
    progress: str | None = None
    answer: dict[str, Any] | None = None
    error: str | None = None
    exit: int | None = None


def encode(message: Request | Reply) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"
