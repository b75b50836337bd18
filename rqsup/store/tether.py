"""Runs a program that dies with the process that asked for it: `python tether.py PARENT_PID PROGRAM …`.

A file of its own, run by a fresh interpreter, because code between fork and exec is not safe in a
process with threads, and rqsup may be embedded in one. It imports nothing of rqsup: it starts in 15 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask the kernel for a SIGKILL at the parent's death, then become the program."""
    parent_pid, program = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit("the parent died before the tether was set")
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted here


if __name__ == "__main__":
    main(sys.argv[1:])
