"""The worker's end of its black box: memory of its master's, into which its stacks are written and which outlives it.

faulthandler writes from inside the signal handler, without the interpreter: so it works while C code holds the
interpreter's lock, and in a process that is about to die. The memory has a fixed size and no reader to wait
for, so writing to it never blocks. The master's end is rqsup/supervisor/blackbox.py.
"""

from __future__ import annotations

import faulthandler
import os
import signal

#: Has a worker write the stacks of all its threads, and go on.
DUMP = signal.SIGUSR2


def install(descriptor: int) -> None:
    """Write stacks to the black box: on DUMP, and before a death by a signal of C code (SIGSEGV and the like).

    Args:
        descriptor: the black box; negative = there is none, and stacks go to standard error.
    """
    if descriptor < 0:
        faulthandler.enable()
        return
    # A program that a job starts must not write here.
    os.set_inheritable(descriptor, False)
    faulthandler.enable(file=descriptor, all_threads=True)
    faulthandler.register(DUMP, file=descriptor, all_threads=True, chain=False)
