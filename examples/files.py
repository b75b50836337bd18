"""The demo's application: an ordinary module with one task, which reads a file and returns its digest.

Enqueue it by function, `client.enqueue(digest, "/etc/hosts")`, or send a tree with
`rqsup produce DIR --task files.digest --queue files`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any

from rqsup import task

#: Bytes read at once: enough to keep the disk busy, little beside a worker's memory.
CHUNK_BYTES = 1 << 20
#: Neither a pipe without a writer nor a link put in the file's place may hold or mislead the worker.
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


@task(name="files.digest", queue="files")
def digest(path: str) -> dict[str, Any]:
    """Read one file; return its path, its size in bytes and its SHA-256.

    A file that vanished, that may not be read, or that is no regular file is no reason to try
    again: its result has the reason in `error`, and no digest.
    """
    try:
        size, sha256 = _read(path)
    except (OSError, ValueError) as fault:
        return {"path": path, "bytes": 0, "sha256": None, "error": str(fault)}
    return {"path": path, "bytes": size, "sha256": sha256}


def _read(path: str) -> tuple[int, str]:
    with open(path, "rb", buffering=0, opener=_open) as file:
        size, running = 0, hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            running.update(chunk)
        return size, running.hexdigest()


def _open(path: str, _: int) -> int:
    descriptor = os.open(path, OPEN_FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is not a regular file")
    return descriptor
