"""An application that holds much memory, all of it loaded before the workers are forked."""

from __future__ import annotations

import os

from rqsup import task

#: 100 MiB that no worker writes to.
DATA = bytes(os.urandom(1024)) * (100 << 10)


@task(name="large.touch")
def touch() -> int:
    """Read all of it."""
    return sum(len(DATA[place : place + (1 << 20)]) for place in range(0, len(DATA), 1 << 20))
