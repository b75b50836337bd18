"""The zygote: the only process that forks, and the only file that calls `os.fork`.

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
import threading
import time
import traceback
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

from rqsup import logs
from rqsup.errors import ForkRefused as ForkRefusedError
from rqsup.settings import Settings
from rqsup.supervisor.messages import (
    MESSAGE_BYTES,
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
from rqsup.task import task_names
from rqsup.workers.boot import Assignment, die_with_parent, ignore_signals, run_worker
from rqsup.workers.protocol import protocol
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
    set_title(f"zygote [{order.settings.pool}] gen {order.generation}")
    answer = prepare(order.settings)
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
    # What the application printed would otherwise be copied into each worker, and printed again by it.
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    return Prepared(task_names(), time.monotonic() - started, protocol())


def _serve(control: socket.socket, memory: mmap, settings: Settings) -> None:
    while True:
        request, descriptors = _receive(control)
        if not isinstance(request, ForkWorker):
            return
        channel, box = descriptors[0], descriptors[1] if len(descriptors) > 1 else -1

        def be_worker(assignment: Assignment = request.assignment, channel: int = channel, box: int = box) -> None:
            control.close()
            run_worker(assignment, settings, memory, channel, box)

        control.send(encode(_answer_fork(request.assignment, be_worker)))
        for descriptor in descriptors:
            os.close(descriptor)


def _answer_fork(assignment: Assignment, be_worker: Callable[[], None]) -> Message:
    try:
        refuse_threads()
        return Forked(assignment.worker, _fork_twice(be_worker))
    except (ForkRefusedError, OSError) as fault:
        return ForkRefused(assignment.worker, str(fault))


def _receive(control: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and its descriptors; None when the master closed its end."""
    data, descriptors, _flags, _address = socket.recv_fds(control, MESSAGE_BYTES, 2)
    for descriptor in descriptors:
        # No program that a job starts shall hold a worker's channel open; recv_fds itself ignores flags.
        os.set_inheritable(descriptor, False)
    return (decode(data) if data else None), list(descriptors)


def refuse_threads() -> None:
    """Check that this process has one thread.

    Raises:
        ForkRefused: it has more; the message names them.
    """
    tasks = list(Path("/proc/self/task").iterdir())
    if len(tasks) == 1:
        return
    own = str(os.getpid())
    # Python's own threads have a better name than the kernel's, which is the program's for all of them.
    python = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    names = sorted(python.get(task.name) or (task / "comm").read_text().strip() for task in tasks if task.name != own)
    raise ForkRefusedError(
        f"the application started {len(names)} thread(s) at import ({', '.join(names)}), which makes a fork unsafe: "
        "start them in the first job instead"
    )


def _fork_twice(be_worker: Callable[[], None]) -> int:
    """Fork a grandchild and let its parent end, so that the kernel gives it to the master, a child subreaper.

    Returns the grandchild's pid.
    """
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe:
        try:
            between = os.fork()
            if between == 0:
                _fork_grandchild(read_end, write_end, be_worker)
        finally:
            os.close(write_end)
        text = pipe.read()
    os.waitpid(between, 0)
    if not text:
        raise OSError("fork failed: the machine is out of processes or memory")
    return int(text)


def _fork_grandchild(read_end: int, write_end: int, be_worker: Callable[[], None]) -> None:
    try:
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            os.close(read_end)
            be_worker()
        os.write(write_end, str(pid).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
