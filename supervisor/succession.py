"""The new program's side of an upgrade: checks that it could take over, takes over, and goes on to new workers.

Should it not be able to take over although it had said so, there is no way back: it ends the children that it
does not know, so that their jobs go back to their queues, and starts afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NoReturn

import psutil

from rqsup import __version__, logs
from rqsup.config import load
from rqsup.errors import EstateUnfit
from rqsup.settings import LogSettings
from rqsup.supervisor import estate
from rqsup.supervisor.estate import Estate
from rqsup.supervisor.fixed import refuse_fixed
from rqsup.supervisor.master import Master
from rqsup.supervisor.program import ESTATE_VARIABLE, this_program
from rqsup.supervisor.role import Role
from rqsup.supervisor.turns import TurnClock

#: Seconds in which killed children are gone.
DEATH_S = 5.0


def check(config: str | None, descriptor: int) -> str:
    """Says in one line who could take up this estate, after a look at all that it needs for it.

    Raises:
        RqsupError: this program could not; the message says why.
    """
    settings = load(config)
    left = estate.read(descriptor)
    refuse_fixed(estate.settings_in(left) or settings, settings)
    return f"rqsup {__version__}"


def supervise(config: str | None, role: Role) -> int:
    """Be the master: a new one, or the one that an upgrade put here; returns the exit code."""
    environ = dict(os.environ)
    document = environ.pop(ESTATE_VARIABLE, "")
    # At once: nothing that is started from here may take this process's estate for its own.
    os.environ.pop(ESTATE_VARIABLE, None)
    try:
        if document:
            # Until the settings are known: what follows may have to tell something.
            logs.configure(LogSettings())
        left = _receive(document) if document else None
        settings = (estate.settings_in(left) if left else None) or load(config)
        logs.configure(settings.log)
        clock = TurnClock()
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
            return runner.run(Master(settings, config=config, clock=clock, role=role, left=left).run())
    except EstateUnfit as fault:
        _start_afresh(fault, environ)


def _receive(document: str) -> Estate:
    """Read the estate, and let no child of this process have what it names."""
    try:
        descriptor = int(document)
        left = estate.read(descriptor)
        os.close(descriptor)
        for named in left.descriptors():
            os.set_inheritable(named, False)
    except (OSError, ValueError) as fault:
        raise EstateUnfit(f"the state of the program before this one is not there ({fault})") from fault
    return left


def _start_afresh(fault: EstateUnfit, environ: dict[str, str]) -> NoReturn:
    logs.get_logger("master").critical(
        "the upgrade cannot be completed: all workers are ended, their jobs go back, the master starts afresh",
        error=str(fault), exc_info=fault,
    )  # fmt: skip
    _end_children()
    for path in Path("/proc/self/fd").iterdir():
        # The one that this listing itself needs is gone by now.
        with contextlib.suppress(OSError):
            os.set_inheritable(int(path.name), int(path.name) <= 2)
    this_program().replace(environ)


def _end_children() -> None:
    """Kill and reap all children, and what they leave to us, their subreaper."""
    deadline = time.monotonic() + DEATH_S
    while time.monotonic() < deadline and (children := psutil.Process().children()):
        for child in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        psutil.wait_procs(children, timeout=max(0.0, deadline - time.monotonic()))
