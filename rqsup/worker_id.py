"""The id of a worker: `<host>.<master>.<generation>.<serial>`.

It stands on each job that the worker takes, so a job tells on which host and by which code it ran, at the
cost of no field of its own.
"""

from __future__ import annotations

import re

_ID = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.(\d+)\.\d+", re.ASCII)


def make_worker_id(master: str, generation: int, serial: int) -> str:
    """The id of a master's next worker.

    Args:
        master: `<host>.<master>`, unique among all masters that live or lived.
        generation: number of the generation of code that it runs.
        serial: how many workers this master had before, and one.

    >>> make_worker_id("mail-1.5f00d1e5", 2, 17)
    'mail-1.5f00d1e5.2.17'
    """
    return f"{master}.{generation}.{serial}"


def generation_of(worker: str) -> int | None:
    """Number of the generation that a worker belonged to; None when this is no id that rqsup made.

    >>> generation_of("mail-1.5f00d1e5.2.17")
    2
    >>> generation_of("w1") is None
    True
    """
    found = _ID.fullmatch(worker)
    return int(found[1]) if found else None
