"""A piece of work in a forked process: its answer or its death, and nothing of it left behind.

With the zygote, the only file that calls `os.fork`. The answer travels through a pipe: 8 bytes of
length, then bytes that the caller must not trust. Afterwards the process group is killed, then whatever left the group.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from rqsup.logs import get_logger
from rqsup.workers.endings import describe_exit, describe_signal
from rqsup.workers.kernel import adopt_orphans, die_with_parent

#: Seconds that the process has to end after its answer, before it is killed.
EXIT_S = 1.0
#: Seconds between two calls of `tick`.
TICK_S = 0.1
#: Bytes of the length before the answer.
HEADER = 8
#: Bytes read at once.
READ_BYTES = 1 << 16
#: Rounds of killing what escaped from the process group: each ends one generation of descendants at least.
ROUNDS = 100
#: Exit status of a process whose work raised: a fault of rqsup, because work catches what jobs raise.
EXIT_BROKEN = 70


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work ended."""

    #: What it answered; None = it died before that.
    answer: bytes | None
    #: The death in words; empty with an answer.
    cause: str
    pid: int
    #: Where its threads were, if that is known.
    stack: str = ""


class Observer:
    """Accompanies the process from outside; this one does nothing."""

    def started(self, pid: int) -> None:
        """The process runs; 0 = all of it has ended."""

    def tick(self, pidfd: int) -> None:
        """Time has passed (some ten times a second)."""

    def overdue(self, pidfd: int) -> str:  # noqa: ARG002 - for those that ask it
        """It is about to be killed; returns where its threads are, if that can be known."""
        return ""

    def explain(self, number: int, peak_bytes: int) -> str:
        """Words for its death by a signal that was not ours."""
        return describe_signal(number, peak_bytes=peak_bytes)

    def last_words(self) -> str:
        """What it wrote while it died."""
        return ""


NOBODY = Observer()


@dataclass(slots=True)
class Call:
    """What is to be done apart, and its bounds."""

    #: Told the pipe's descriptor, the one that it must leave open.
    work: Callable[[int], bytes]
    #: Most bytes of the answer.
    limit: int
    #: When to kill it, CLOCK_MONOTONIC, and the words for that.
    deadline: float
    overdue: str
    observer: Observer = NOBODY


def run_forked(call: Call) -> Ending:
    """Do the work in a process of its own. The caller has made sure that this process has one thread.

    Raises:
        OSError: no process or pipe could be made.
    """
    before = _children()
    read_end, write_end = os.pipe()
    flush_streams()
    adopt_orphans(adopt=True)
    parent = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(call.work, write_end, parent)
        os.close(write_end)
        write_end = -1
        with contextlib.suppress(OSError):
            # By both sides, so that the group exists whoever comes first.
            os.setpgid(pid, pid)
        call.observer.started(pid)
        return _attend(call, pid, read_end, before)
    finally:
        adopt_orphans(adopt=False)
        call.observer.started(0)
        os.close(read_end)
        if write_end >= 0:
            os.close(write_end)


def _be_child(work: Callable[[int], bytes], pipe: int, parent: int) -> NoReturn:
    status = EXIT_BROKEN
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        # What was there before is not looked through for garbage here: that would copy the worker's whole heap.
        gc.freeze()
        answer = work(pipe)
        # Before the answer: after it, the parent waits no longer than it must.
        flush_streams()
        data = memoryview(len(answer).to_bytes(HEADER, "little") + answer)
        while data:
            data = data[os.write(pipe, data) :]
        status = 0
    except BaseException:  # noqa: BLE001 - the last frame of this process: tell, and never unwind into the worker's loop
        get_logger("worker").exception("isolated process failed")
    finally:
        os._exit(status)


def _attend(call: Call, pid: int, pipe: int, before: set[int]) -> Ending:
    """Wait for the answer and the end, then make sure of the end."""
    pidfd = os.pidfd_open(pid)
    try:
        answer, fault = _listen(call, pidfd, pipe)
        stack = call.observer.overdue(pidfd) if fault else ""
        # While the zombie holds the pid, the group of that number is its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    finally:
        os.close(pidfd)
    _end_escaped(before)
    if answer is not None:
        return Ending(answer, "", pid)
    if fault:
        return Ending(None, f"{fault}; killed by its worker", pid, stack)
    if os.WIFEXITED(status):
        return Ending(None, describe_exit(os.WEXITSTATUS(status)), pid)
    cause = call.observer.explain(os.WTERMSIG(status), usage.ru_maxrss * 1024)
    return Ending(None, cause, pid, call.observer.last_words())


def _listen(call: Call, pidfd: int, pipe: int) -> tuple[bytes | None, str]:
    """The answer, if it comes whole; else why the process has to be killed, if it did not die by itself."""
    os.set_blocking(pipe, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(pipe, select.POLLIN)
    data, deadline, answer, listening = bytearray(), call.deadline, None, True
    while (left_s := deadline - time.monotonic()) > 0:
        ended = any(source == pidfd for source, _ in poll.poll(1000 * min(left_s, TICK_S) + 1))
        if listening:
            more = _read(pipe, data, call.limit)
            answer = _whole(data)
            if answer is not None:
                deadline = min(deadline, time.monotonic() + EXIT_S)
            if answer is not None or not more:
                listening = False
                poll.unregister(pipe)
        if len(data) > HEADER + call.limit:
            return None, f"it sent more than the {call.limit:,} bytes allowed for an answer"
        if ended:
            return answer, ""
        call.observer.tick(pidfd)
    return answer, "" if answer is not None else call.overdue


def _read(pipe: int, data: bytearray, limit: int) -> bool:
    """Take in what has come, a little more than allowed at most; False at the end of it."""
    while len(data) <= HEADER + limit:
        try:
            more = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return True
        if not more:
            return False
        data += more
    return True


def _whole(data: bytearray) -> bytes | None:
    length = int.from_bytes(data[:HEADER], "little")
    return bytes(data[HEADER:]) if len(data) >= HEADER and len(data) == HEADER + length else None


def _end_escaped(before: set[int]) -> None:
    """Kill and reap what left the group: orphaned, it became this process's own child."""
    for _ in range(ROUNDS):
        escaped = _children() - before
        if not escaped:
            return
        for pid in escaped:
            # Not reaped yet, so the number is nobody else's.
            os.kill(pid, signal.SIGKILL)
        for pid in escaped:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
    get_logger("worker").error("an isolated job left processes that multiply faster than they are killed")


def _children() -> set[int]:
    try:
        # Nearly always there are none, and this call tells it without a file to read.
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return set()
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 - before and after each job
            return set(map(int, file.read().split()))
    except FileNotFoundError:
        import psutil  # for a kernel without CONFIG_PROC_CHILDREN; loading it would cost each start

        return {child.pid for child in psutil.Process().children()}


def flush_streams() -> None:
    """Write out what was printed, so that a fork does not copy it or an end lose it."""
    for stream in (sys.stdout, sys.stderr):
        # A job may have closed it, or its reader may be gone.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
