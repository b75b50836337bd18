"""The zygote: the process that forks workers. (Only `workers/isolation/fork.py` forks as well: a job's own process.)

The master starts it by exec, so it inherits nothing and runs new code. It imports the application
once, freezes the heap, and forks workers on request. It has one thread, no Redis client and no
exporter, so a fork can copy no lock that somebody holds (docs/fork-safety.md).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

from rqsup import logs
from rqsup.errors import ForkRefused as ForkRefusedError
from rqsup.errors import RedisUnavailable, SandboxIncomplete
from rqsup.settings import Settings
from rqsup.store.wire import Wire
from rqsup.supervisor.messages import (
    MESSAGE_BYTES,
    MESSAGE_DESCRIPTORS,
    REASON_CHARS,
    Forked,
    ForkRefused,
    ForkWorker,
    Message,
    Prepare,
    Prepared,
    PrepareFailed,
    decode,
    encode,
)  # fmt: skip
from rqsup.task import find_task, task_names
from rqsup.workers.assignment import Assignment
from rqsup.workers.boot import Descriptors, ignore_signals, run_worker
from rqsup.workers.isolation.protection import Protection
from rqsup.workers.kernel import die_with_parent
from rqsup.workers.loop import SCRIPTS
from rqsup.workers.protocol import protocol
from rqsup.workers.rehearsal import rehearse
from rqsup.workers.threads import other_threads
from rqsup.workers.title import set_title


def main() -> int:
    """Serve the master until it closes the socket. Arguments: descriptors of the socket and the scoreboard."""
    control = socket.socket(fileno=int(sys.argv[1]))
    memory = mmap(int(sys.argv[2]), 0)
    # The mapping stays; programs that the application starts shall inherit neither of the two.
    os.close(int(sys.argv[2]))
    control.set_inheritable(False)
    ignore_signals()
    # The master may close its end at any moment, to end this process.
    with contextlib.suppress(ConnectionError):
        return _live(control, memory)
    return 0


def _live(control: socket.socket, memory: mmap) -> int:
    order, _ = _receive(control)
    if not isinstance(order, Prepare):
        return 1
    die_with_parent(order.master_pid)
    logs.configure(order.settings.log)
    title = f"zygote [{order.settings.pool}] gen {order.generation}"
    set_title(title)
    answer = prepare(order.settings)
    set_title(title)
    control.send(encode(answer))
    if isinstance(answer, Prepared):
        _serve(control, memory, order.settings)
    return 0


def prepare(settings: Settings) -> Prepared | PrepareFailed:
    """Import the application, and make the heap ready for copy-on-write."""
    started = time.monotonic()
    # No collection while importing: it would only move objects that stay.
    gc.disable()
    try:
        for module in settings.app:
            importlib.import_module(module)
    except BaseException:  # noqa: BLE001 - application code: SystemExit in a module is its failure, not our end
        # JSON holds no half of a surrogate pair, as an odd file name in an error may.
        reason = traceback.format_exc().encode("utf-8", "backslashreplace").decode()
        return PrepareFailed(reason[-REASON_CHARS:])
    try:
        protections = _try_sandbox(settings)
    except (SandboxIncomplete, OSError) as fault:
        return PrepareFailed(str(fault)[-REASON_CHARS:])
    _warm_up(settings)
    _rehearse(settings)
    # What the application printed would otherwise be copied into each worker, and printed again by it.
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    return Prepared(task_names(), time.monotonic() - started, protocol(), protections)


def _try_sandbox(settings: Settings) -> list[Protection]:
    """If a task asks for the sandbox, look which of its protections this machine has, and tell those it lacks.

    Raises:
        SandboxIncomplete: one of them is demanded.
    """
    if not any(task.isolation == "sandbox" for task in map(find_task, task_names()) if task):
        return []
    from rqsup.workers.isolation.sandbox import sandbox_of  # not for every application: half a megabyte

    sandbox = sandbox_of(settings.sandbox)
    sandbox.check()
    for wall, why in sandbox.missing.items():
        logs.get_logger("zygote").warning("sandbox: a protection is missing on this machine", protection=wall, why=why)
    return sandbox.protections()


def _warm_up(settings: Settings) -> None:
    """Load once what each worker would load for itself after the fork: its start would take longer, its memory be private."""
    if settings.workers.concurrency > 1:
        from rqsup.workers.concurrent import find_uvloop

        find_uvloop()
    if any(task.is_async for task in map(find_task, task_names()) if task):
        importlib.import_module("rqsup.workers.coroutines")
    # A password that cannot be read is the workers' to tell: they may be able to when they need it.
    with contextlib.suppress(RedisUnavailable):
        Wire(settings.redis, name="", scripts=SCRIPTS).warm_up()


def _rehearse(settings: Settings) -> None:
    try:
        rehearse(settings, "zygote")
    except Exception:  # noqa: BLE001 - it only saves memory: no reason not to start
        logs.get_logger("zygote").warning("the rehearsal failed: each worker takes some memory more", exc_info=True)


def _serve(control: socket.socket, memory: mmap, settings: Settings) -> None:
    while True:
        request, descriptors = _receive(control)
        if not isinstance(request, ForkWorker):
            return
        given = Descriptors(*descriptors)

        def be_worker(assignment: Assignment = request.assignment, given: Descriptors = given) -> None:
            control.close()
            run_worker(assignment, settings, memory, given)

        control.send(encode(_answer_fork(request.assignment, be_worker)))
        for descriptor in descriptors:
            os.close(descriptor)


def _answer_fork(assignment: Assignment, be_worker: Callable[[], None]) -> Message:
    try:
        refuse_threads()
        return Forked(assignment.worker, _fork_twice(be_worker, assignment.leaf))
    except (ForkRefusedError, OSError) as fault:
        return ForkRefused(assignment.worker, str(fault))


def _receive(control: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and its descriptors; None when the master closed its end."""
    data, descriptors, _flags, _address = socket.recv_fds(control, MESSAGE_BYTES, MESSAGE_DESCRIPTORS)
    for descriptor in descriptors:
        # No program that a job starts shall hold a worker's channel open; recv_fds itself ignores flags.
        os.set_inheritable(descriptor, False)
    return (decode(data) if data else None), list(descriptors)


def refuse_threads() -> None:
    """Check that this process has one thread.

    Raises:
        ForkRefused: it has more; the message names them.
    """
    names = other_threads()
    if not names:
        return
    raise ForkRefusedError(
        f"the application started {len(names)} thread(s) at import ({', '.join(names)}), which makes a fork unsafe: "
        "start them in the first job instead"
    )


def _fork_twice(be_worker: Callable[[], None], leaf: str) -> int:
    """Fork a grandchild and let its parent end, so that the kernel gives it to the master, a child subreaper.

    Returns the grandchild's pid. It is born inside `leaf`, a cgroup's folder, if one is named.
    """
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe:
        try:
            between = os.fork()
            if between == 0:
                _fork_grandchild(read_end, write_end, be_worker, leaf)
        finally:
            os.close(write_end)
        text = pipe.read()
    os.waitpid(between, 0)
    if not text:
        raise OSError("fork failed: the machine is out of processes or memory")
    if not text.isdigit():
        raise OSError(text.decode())
    return int(text)


def _fork_grandchild(read_end: int, write_end: int, be_worker: Callable[[], None], leaf: str) -> None:
    try:
        _enter(leaf, write_end)
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            os.close(read_end)
            be_worker()
        os.write(write_end, str(pid).encode())
    finally:
        os._exit(0)


def _enter(leaf: str, write_end: int) -> None:
    """Go into a cgroup, and all that is forked from here on with it; what hinders that is told instead of a pid."""
    if not leaf:
        return
    try:
        Path(leaf, "cgroup.procs").write_text("0")
    except OSError as fault:
        os.write(write_end, f"the kernel refuses the cgroup leaf {leaf}: {fault.strerror}".encode())
        raise


if __name__ == "__main__":
    sys.exit(main())
