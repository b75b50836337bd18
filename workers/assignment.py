"""What master and worker agree on: who a new worker is, and what its exit status means.

Apart from the worker's own code, which the master must not carry.
"""

from __future__ import annotations

import msgspec

#: Exit status of a worker whose own code failed: a fault of rqsup, not of a job.
EXIT_BROKEN = 70

#: Exit status of a canary whose check failed.
EXIT_UNFIT = 71


class Assignment(msgspec.Struct, frozen=True):
    """Who a new worker is."""

    number: int
    #: Unique for ever: host, the master's boot nonce, a counter. A name used again would hide its dead bearer's jobs.
    worker: str
    slot: int
    generation: int
    master_pid: int
    #: Function `module:name` to call before it becomes ready; empty = none.
    check: str = ""
    #: Secret of the marks in its output pipe; empty = its output is not captured.
    mark: str = ""
    #: Folder of the cgroup that it is born in; empty = the master's own.
    leaf: str = ""
