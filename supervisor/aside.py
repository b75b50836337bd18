"""Runs a program aside: in a process of its own, which is thrown away, while the master's loop goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterable, Sequence


async def run_aside(
    command: Sequence[str], *, own: set[int], timeout_s: float, output: int, errors: int | None = None,
    executable: str | None = None, descriptors: Iterable[int] = (),
) -> int | None:  # fmt: skip
    """Start a program, and wait for its end; it outlives this call in no case.

    Args:
        command: its arguments, the name first.
        own: takes its pid while it lives, so that nobody else reaps it.
        timeout_s: seconds after which it is killed with all that it started.
        output: descriptor for what it says. Not a pipe: nobody reads while it writes.
        errors: the same for its standard error; None = ours.
        executable: the file to execute, if it is not the first of its arguments.
        descriptors: what else it gets.

    Returns its exit status, negative for a signal; None when it took too long.

    Raises:
        OSError: it could not be started.
    """
    process = _start(command, output, errors, executable, descriptors)
    own.add(process.pid)
    try:
        return await _ended(process.pid, timeout_s)
    finally:
        own.discard(process.pid)


def _start(
    command: Sequence[str], output: int, errors: int | None, executable: str | None, descriptors: Iterable[int]
) -> subprocess.Popen[bytes]:  # fmt: skip
    process = subprocess.Popen(
        command, executable=executable, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
        pass_fds=tuple(descriptors), start_new_session=True,
    )  # fmt: skip
    # It is reaped through its pidfd; Popen must neither wait nor complain.
    process.returncode = 0
    return process


async def _ended(pid: int, timeout_s: float) -> int | None:
    pidfd = os.pidfd_open(pid)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(pidfd)
        in_time = ended.is_set()
        if not in_time:
            os.killpg(pid, signal.SIGKILL)
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)  # noqa: ASYNC222 - it has ended, or was killed
        os.close(pidfd)
    if found is None or not in_time:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
