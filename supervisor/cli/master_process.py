"""A master as a process: checked, signalled and waited for through a pidfd, so never a stranger with a reused pid."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rqsup.errors import MasterUnreachable, RqsupError

#: Seconds between two lines that say what is waited for.
REPORT_EVERY_S = 5.0
#: Seconds in which a process that closes its sockets ends.
EXIT_GRACE_S = 1.0


class MasterProcess:
    """The process with this pid, held from the look at its command line to the end of the wait.

    Args:
        pid: its process id.
        trusted: whether the kernel already vouched that it is a master (it listens on the control socket).
    """

    def __init__(self, pid: int, *, trusted: bool = False) -> None:
        self.pid = pid
        try:
            self._pidfd = os.pidfd_open(pid)
        except (ProcessLookupError, OSError) as fault:
            raise MasterUnreachable(
                f"there is no process {pid}: `pgrep -f 'rqsup: master'` lists the masters"
            ) from fault
        if not trusted and not _is_master(pid):
            os.close(self._pidfd)
            raise MasterUnreachable(
                f"process {pid} is no rqsup master, so it gets no signal: `pgrep -f 'rqsup: master'` lists the masters"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pidfd)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal.

        Raises:
            MasterUnreachable: it is gone, or belongs to another user.
        """
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except PermissionError as fault:
            raise MasterUnreachable(
                f"master {self.pid} belongs to another user: run the command as it or root"
            ) from fault
        except ProcessLookupError as fault:
            raise MasterUnreachable(f"master {self.pid} has just ended") from fault

    def is_gone(self, within_s: float = EXIT_GRACE_S) -> bool:
        """Whether it ends within this time."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, within_s) * 1000))

    def wait_until_gone(self, limit_s: float, report: Callable[[str], None]) -> None:
        """Wait until it has ended, and report now and then.

        Raises:
            RqsupError: it still runs after `limit_s` seconds.
        """
        deadline = time.monotonic() + limit_s
        while not self.is_gone(min(REPORT_EVERY_S, deadline - time.monotonic())):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise RqsupError(
                    f"master {self.pid} still runs after {limit_s:g} s and goes on draining: "
                    "wait longer with --timeout, or end its jobs with `rqsup stop --now`"
                )
            report(f"waiting for master {self.pid} to end, {left_s:.0f} s left")


def _is_master(pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return False
    return reads_as_master(arguments)


def reads_as_master(arguments: list[bytes]) -> bool:
    """Whether a command line is that of an rqsup master."""
    if arguments[0].startswith(b"rqsup:"):
        return arguments[0].startswith(b"rqsup: master")
    # Before it has set its title, a master shows as `rqsup run …` or `python …/rqsup run …`.
    programs = [os.path.basename(argument) for argument in arguments[:2]]  # noqa: PTH119 - bytes, not paths
    return b"rqsup" in programs and b"run" in arguments[programs.index(b"rqsup") + 1 :]
