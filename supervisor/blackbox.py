"""The master's end of a worker's black box: asks for the stacks of all threads, and reads them, also after a death.

The box is a memfd of fixed size whose file position both sides share: the position is how much was written,
and setting it to 0 empties the box. The worker's end is rqsup/workers/blackbox.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time

from rqsup.workers.blackbox import DUMP

#: Size of a box: some deep stacks. Only what is written takes memory.
BOX_BYTES = 1 << 18
#: Longest wait for an answer, seconds: a worker that is stopped, or hangs in the kernel, gives none.
ANSWER_S = 0.2
#: Pause between two looks, and how long nothing more must have come, seconds: a dump has no end mark.
LOOK_S, QUIET_S = 0.003, 0.012
#: Most characters of one worker's stacks that are kept: both ends, since the thread that matters may be the last.
STACK_CHARS = 16_000
#: What faulthandler writes first when a process dies.
FATAL = "Fatal Python error"
#: In place of the stacks of a worker that does not answer.
SILENT = "(no answer: the worker is stopped, or hangs in the kernel)"


class BlackBox:
    """One worker's box. `descriptor` goes to the worker when it is forked; one that is given is a box already."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _make() if descriptor is None else descriptor
        self._lock = asyncio.Lock()

    async def ask(self, pidfd: int) -> str:
        """Have the worker write its stacks, and return them; empty when it does not answer in time.

        The worker goes on. Two that ask at once take turns.
        """
        try:
            async with asyncio.timeout(ANSWER_S), self._lock:
                self._empty()
                signal.pidfd_send_signal(pidfd, DUMP)
                await self._until_quiet()
        except (TimeoutError, OSError):
            # It does not answer, or is gone, and its descriptors with it. What is there by now is better than nothing.
            return self.read()
        return self.read()

    def read(self) -> str:
        """What is in the box, shortened."""
        if self.descriptor < 0:
            return ""
        return shorten(os.pread(self.descriptor, self._written(), 0).decode("ascii", "replace"))

    def last_words(self) -> str:
        """What the process wrote while it died; empty when it died in silence."""
        text = self.read()
        return text[text.index(FATAL) :] if FATAL in text else ""

    def close(self) -> None:
        """Give the memory back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    async def _until_quiet(self) -> None:
        seen, since = 0, time.monotonic()
        while not (seen and time.monotonic() - since >= QUIET_S):
            await asyncio.sleep(LOOK_S)
            written = self._written()
            if written != seen:
                seen, since = written, time.monotonic()

    def _written(self) -> int:
        # Closed meanwhile: the worker died and was reaped while it was asked.
        if self.descriptor < 0:
            return 0
        with contextlib.suppress(OSError):
            return min(os.lseek(self.descriptor, 0, os.SEEK_CUR), BOX_BYTES)
        return 0

    def _empty(self) -> None:
        if self.descriptor >= 0:
            os.lseek(self.descriptor, 0, os.SEEK_SET)


def _make() -> int:
    descriptor = os.memfd_create("rqsup-black-box", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, BOX_BYTES)
    # Whatever writes on and on, a worker's box takes no more memory than this.
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def shorten(text: str, limit: int = STACK_CHARS) -> str:
    r"""Both ends of a long text.

    >>> shorten("abcdefgh", 4)
    'ab\n  ...\ngh'
    """
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n  ...\n{text[-half:]}"
