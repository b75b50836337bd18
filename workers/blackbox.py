"""The worker's end of its black box: memory of its master's, into which its stacks are written and which outlives it.

faulthandler writes from inside the signal handler, without the interpreter: so it works while C code holds the
interpreter's lock, and in a process that is about to die. The memory has a fixed size and no reader to wait
for, so writing to it never blocks. The process of an isolated job writes to the box of its worker. The
master's end is rqsup/supervisor/blackbox.py.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time

#: Has a worker write the stacks of all its threads, and go on.
DUMP = signal.SIGUSR2
#: Size of a box: some deep stacks. Only what is written takes memory.
BOX_BYTES = 1 << 18
#: Longest wait for an answer, seconds: a process that is stopped, or hangs in the kernel, gives none.
ANSWER_S = 0.2
#: Pause between two looks, and how long nothing more must have come, seconds: a dump has no end mark.
LOOK_S, QUIET_S = 0.003, 0.012
#: Most characters of one process's stacks that are kept: both ends, since the thread that matters may be the last.
STACK_CHARS = 16_000
#: What faulthandler writes first when a process dies.
FATAL = "Fatal Python error"


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


def read(descriptor: int) -> str:
    """What is in a box, shortened; empty without a box."""
    if descriptor < 0:
        return ""
    return shorten(os.pread(descriptor, written(descriptor), 0).decode("ascii", "replace"))


def written(descriptor: int) -> int:
    """How many bytes are in a box: its file position, which all who have it share."""
    # Closed meanwhile: the worker died and was reaped while it was asked.
    if descriptor < 0:
        return 0
    with contextlib.suppress(OSError):
        return min(os.lseek(descriptor, 0, os.SEEK_CUR), BOX_BYTES)
    return 0


def empty(descriptor: int) -> None:
    """Forget what is in a box."""
    if descriptor >= 0:
        os.lseek(descriptor, 0, os.SEEK_SET)


def last_words(text: str) -> str:
    """The part of a box's text that a process wrote while it died; empty when it died in silence."""
    return text[text.index(FATAL) :] if FATAL in text else ""


def ask(descriptor: int, pidfd: int) -> str:
    """Have an isolated job's process write its stacks, and wait for them; for its worker. It goes on."""
    if descriptor < 0:
        return ""
    empty(descriptor)
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, DUMP)
    seen, since = 0, time.monotonic()
    deadline = since + ANSWER_S
    while time.monotonic() < deadline and not (seen and time.monotonic() - since >= QUIET_S):
        time.sleep(LOOK_S)
        now_written = written(descriptor)
        if now_written != seen:
            seen, since = now_written, time.monotonic()
    return read(descriptor)


def shorten(text: str, limit: int = STACK_CHARS) -> str:
    r"""Both ends of a long text.

    >>> shorten("abcdefgh", 4)
    'ab\n  ...\ngh'
    """
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n  ...\n{text[-half:]}"
