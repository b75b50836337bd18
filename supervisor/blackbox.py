"""The master's end of a worker's black box: asks for the stacks of all threads, and reads them, also after a death.

The box is a memfd of fixed size whose file position both sides share: the position is how much was written,
and setting it to 0 empties the box. The worker's end is rqsup/workers/blackbox.py.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time

from rqsup.workers.blackbox import ANSWER_S, BOX_BYTES, DUMP, LOOK_S, QUIET_S, empty, last_words, read, written

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
                empty(self.descriptor)
                signal.pidfd_send_signal(pidfd, DUMP)
                await self._until_quiet()
        except (TimeoutError, OSError):
            # It does not answer, or is gone, and its descriptors with it. What is there by now is better than nothing.
            return self.read()
        return self.read()

    def read(self) -> str:
        """What is in the box, shortened."""
        return read(self.descriptor)

    def last_words(self) -> str:
        """What the process wrote while it died; empty when it died in silence."""
        return last_words(self.read())

    def close(self) -> None:
        """Give the memory back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    async def _until_quiet(self) -> None:
        seen, since = 0, time.monotonic()
        while not (seen and time.monotonic() - since >= QUIET_S):
            await asyncio.sleep(LOOK_S)
            now_written = written(self.descriptor)
            if now_written != seen:
                seen, since = now_written, time.monotonic()


def _make() -> int:
    descriptor = os.memfd_create("rqsup-black-box", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, BOX_BYTES)
    # Whatever writes on and on, a worker's box takes no more memory than this.
    seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor
