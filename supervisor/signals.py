"""Signals of the master: what each one means. A handler only wakes the loop, which then acts.

docs/signals.md shows the same table; a test compares the two.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

#: Meaning of each signal that the master understands.
SIGNALS: dict[signal.Signals, str] = {
    signal.SIGHUP: "reload",
    signal.SIGTERM: "drain and stop; again: jobs give up; again: stop now",
    signal.SIGINT: "stop now, jobs go back",
    signal.SIGQUIT: "stop now, jobs go back",
    signal.SIGUSR1: "reopen logs",
    signal.SIGUSR2: "upgrade: execute the program that is on disk now, in place",
    signal.SIGTTIN: "one worker more",
    signal.SIGTTOU: "one worker fewer",
    signal.SIGTSTP: "quiet: stop fetching",
    signal.SIGCONT: "resume fetching",
    signal.SIGCHLD: "reap",
}


def install(loop: asyncio.AbstractEventLoop, act: Callable[[signal.Signals], None]) -> None:
    """Have the loop call `act` for each signal of the table.

    asyncio registers a wake-up descriptor and an empty handler, so nothing of ours ever runs between
    two bytecodes of something else, where a lock might be held.
    """
    for number in SIGNALS:
        loop.add_signal_handler(number, act, number)
    # One that another thread took would be lost in an upgrade, which ends that thread.
    loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="rqsup", initializer=hold))


def hold() -> None:
    """Have the signals wait, in this thread; the kernel keeps them, also over an exec."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release() -> None:
    """Take signals again, and those that waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
