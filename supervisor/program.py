"""The program as it is on disk now: has it check itself in a process of its own, and puts it in the place of this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rqsup.errors import UpgradeFailed
from rqsup.supervisor.aside import run_aside
from rqsup.supervisor.blackbox import BlackBox

#: Names the descriptor of the estate to the new program. Not RQSUP_…, which are settings.
ESTATE_VARIABLE = "_RQSUP_ESTATE"
#: Has `rqsup run` only say whether it could take up the estate.
CHECK_OPTION = "--check-estate"


@dataclass(frozen=True, slots=True)
class Program:
    """The file to execute, and its command line."""

    path: str
    arguments: tuple[str, ...]

    def replace(self, environ: Mapping[str, str]) -> NoReturn:
        """Be this program from now on.

        Raises:
            OSError: it cannot be executed; nothing has changed.
        """
        os.execve(self.path, self.arguments, environ)  # noqa: S606 - no shell: the same command line as before


def on_disk(executable: str, command: Sequence[str]) -> Program:
    """The program that the command line of this process means now.

    A script that names its interpreter is executed itself, as systemd does it: after a change of the virtual
    environment, that is another interpreter.

    Args:
        executable: `sys.executable`.
        command: `sys.orig_argv`.

    >>> on_disk("/venv/bin/python", ["python", "-m", "rqsup.supervisor", "run"])
    Program(path='/venv/bin/python', arguments=('/venv/bin/python', '-m', 'rqsup.supervisor', 'run'))
    """
    rest = tuple(command[1:])
    if rest and _names_interpreter(rest[0]):
        return Program(rest[0], rest)
    return Program(executable, (executable, *rest))


def _names_interpreter(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!" and os.access(path, os.X_OK)
    except OSError:
        return False


async def check(program: Program, estate: int, timeout_s: float, *, own: set[int]) -> str:
    """Have the program import all it needs, read the configuration, and read the estate; returns its version.

    Args:
        program: what to start.
        estate: descriptor of the document.
        timeout_s: seconds that this may take.
        own: takes the pid of the process while it lives, so that nobody else reaps it.

    Raises:
        UpgradeFailed: it could not, or gave no answer in time; the message holds what it said.
    """
    box = BlackBox()
    command = [*program.arguments, CHECK_OPTION, str(estate)]
    try:
        status = await run_aside(
            command, own=own, timeout_s=timeout_s, output=box.descriptor, errors=box.descriptor,
            executable=program.path, descriptors=[estate],
        )  # fmt: skip
        return _version(status, box.read(), timeout_s)
    except OSError as fault:
        raise UpgradeFailed(f"the new program cannot be started ({fault}); nothing changed") from fault
    finally:
        box.close()


def _version(status: int | None, said: str, timeout_s: float) -> str:
    if status is None:
        raise UpgradeFailed(
            f"the new program took more than {timeout_s:g} s to check itself (upgrade.check_timeout); nothing changed\n{said}".strip()
        )
    lines = said.strip().splitlines() or ["it said nothing"]
    if status:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise UpgradeFailed(
            f"the new program cannot take over, nothing changed: its check ended with {how}: {lines[-1].strip()}\n{said.strip()}"
        )
    name, _, version = lines[-1].partition(" ")
    if name != "rqsup" or not version:
        raise UpgradeFailed(f"the new program does not say that it could take over, nothing changed: {lines[-1]}")
    return version


def this_program() -> Program:
    """The program that this process would be if it were started now."""
    return on_disk(sys.executable, sys.orig_argv)
