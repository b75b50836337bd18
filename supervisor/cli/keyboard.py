"""Single keys from a terminal, as long as a command shows a live view; the terminal is given back as it was."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Self

from rqsup.supervisor.cli.top_screen import DOWN, ENTER, ESCAPE, PAGE_DOWN, PAGE_UP, UP

#: What terminals send for keys that are no characters.
SEQUENCES = {
    b"\x1b[A": UP, b"\x1bOA": UP, b"\x1b[B": DOWN, b"\x1bOB": DOWN, b"\x1b[5~": PAGE_UP, b"\x1b[6~": PAGE_DOWN,
    b"\r": ENTER, b"\n": ENTER, b"\x1b": ESCAPE,
}  # fmt: skip
#: Seconds for the rest of a sequence to come over a slow line.
SEQUENCE_S = 0.05


class Keyboard:
    """A context manager; Ctrl-C stays Ctrl-C."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = sys.stdin.fileno() if fd is None else fd

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def read(self, timeout_s: float) -> str:
        """The next key; empty when none comes in time, `q` when the terminal has gone."""
        if not self._waits(timeout_s):
            return ""
        data = os.read(self._fd, 1)
        if not data:
            return "q"
        while data.startswith(b"\x1b") and data not in SEQUENCES.keys() - {b"\x1b"} and self._waits(SEQUENCE_S):
            data += os.read(self._fd, 1)
            if len(data) > 2 and data[-1:].isalpha():
                break
        return SEQUENCES.get(data, data.decode("ascii", "ignore"))

    def _waits(self, timeout_s: float) -> bool:
        return bool(select.select([self._fd], [], [], timeout_s)[0])
