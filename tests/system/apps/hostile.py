"""Ten handlers that misbehave, each as three tasks: `inline.NAME`, `fork.NAME`, `sandbox.NAME`. And what a sandbox may."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, get_args

from rqsup import Backoff, JobShutdown, current_job, task
from rqsup.task import Isolation

AT_ONCE = Backoff(first_s=0.01, cap_s=0.05)
KEPT: list[Any] = []
#: A file that the application holds open, as a connection would be.
OPEN = open(os.devnull, "rb")  # noqa: SIM115, PTH123 - open for the life of the process


def segfault() -> None:
    """Read the null pointer."""
    ctypes.string_at(0)


def exit_hard() -> NoReturn:
    """End the process behind Python's back."""
    os._exit(0)


def hog_memory() -> None:
    """Take 600 MiB, and keep them."""
    KEPT.extend(b"x" * (10 << 20) for _ in range(60))


def hog_interpreter() -> None:
    """Hold the interpreter's lock in C code."""
    sum(range(10**12))


def be_deaf() -> None:
    """Ignore every signal that can be ignored, and every exception."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            time.sleep(1)
        except BaseException:  # noqa: BLE001, S112 - that is the point
            continue


def leave_thread() -> None:
    """Start a thread and leave it."""
    threading.Thread(target=time.sleep, args=(600,), daemon=True, name="left").start()


def fork_bomb() -> None:
    """Fork as if without end (here: 30), each in a session of its own, and leave them all."""
    for _ in range(30):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)


def leak() -> None:
    """Leave descriptors open, and change what other jobs rely on."""
    KEPT.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(50))
    os.environ["LEAKED"] = "yes"


def read_shadow() -> int:
    """Read the passwords of the machine."""
    return len(Path("/etc/shadow").read_bytes())


def open_socket() -> None:
    """Open a way to the world."""
    socket.create_server(("127.0.0.1", 0)).close()


HANDLERS: tuple[Callable[[], object], ...] = (
    segfault, exit_hard, hog_memory, hog_interpreter, be_deaf, leave_thread, fork_bomb, leak, read_shadow, open_socket,
)  # fmt: skip

for level in get_args(Isolation):
    for handler in HANDLERS:
        limit_s = 0.3 if handler in {hog_interpreter, be_deaf} else 30
        task(name=f"{level}.{handler.__name__}", isolation=level, timeout=limit_s, max_attempts=1)(handler)


def facts() -> dict[str, Any]:
    """Where a job runs."""
    job = current_job()
    return {
        "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgrp(), "job": job.id, "attempt": job.attempt,
        "lease": job.lease_left_s, "stopping": job.stopping, "random": random.random(), "leaked": "LEAKED" in os.environ,
    }  # fmt: skip


def wait_for_stop() -> str:
    """Run until told to finish."""
    while not current_job().stopping:
        time.sleep(0.01)
    return "stopping"


async def nap() -> str:
    """Wait on an event loop."""
    await asyncio.sleep(0.01)
    return "awake"


def nothing() -> None:
    """Do nothing: what is left is the cost of the isolation."""


def crash_once(path: str) -> int:
    """Die in the first attempt."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return current_job().attempt


def fail() -> NoReturn:
    """Raise an error."""
    raise ValueError("no such user")


def huge(size: int) -> str:
    """Return a large text."""
    return "x" * size


def loop_for_ever() -> None:
    """Compute past the timeout."""
    while True:
        pass


def leave_orphan(path: str) -> NoReturn:
    """Have a process in the group, and wait."""
    if os.fork() == 0:
        Path(path).write_text(str(os.getpid()))
        time.sleep(600)
        os._exit(0)
    time.sleep(600)
    os._exit(0)


def clean_up(path: str) -> None:
    """Sleep, and print that it has to give up: a sandbox has no file to write to."""
    try:
        time.sleep(600)
    except JobShutdown:
        print(f"{path} cleaned up, stopping={current_job().stopping}")  # noqa: T201 - its way to the test
        raise


def sleep_in_named_function() -> None:
    """Wait where a stack shows it."""
    time.sleep(600)


def limited() -> list[int]:
    """The limits in force, as far as a task can set them."""
    names = ("RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CPU")
    return [resource.getrlimit(getattr(resource, name))[0] for name in names]


def spin() -> None:
    """Use processor time."""
    while True:
        pass


def eat(megabytes: int) -> NoReturn:
    """Touch so much memory, and keep it."""
    KEPT.append(bytearray(megabytes << 20))
    time.sleep(600)
    os._exit(0)


PLAIN: tuple[Callable[..., Any], ...] = (
    facts, wait_for_stop, nap, nothing, crash_once, fail, huge, leave_orphan, clean_up, sleep_in_named_function, eat,
    limited,
)  # fmt: skip
for level in get_args(Isolation):
    for plain in PLAIN:
        declare: Any = task(name=f"{level}.{plain.__name__}", isolation=level, max_attempts=2, backoff=AT_ONCE)
        declare(plain)
    task(name=f"{level}.loop_for_ever", isolation=level, max_attempts=1, timeout=0.2)(loop_for_ever)
    task(name=f"{level}.spin", isolation=level, max_attempts=1)(spin)
    few: Any = task(
        name=f"{level}.few",
        isolation=level,
        max_attempts=1,
        limits={"nofile": 64, "fsize": 4096, "data": 1 << 30, "cpu": 5},
    )
    few(limited)
    short: Any = task(name=f"{level}.short", isolation=level, max_attempts=1, limits={"cpu": 1})
    short(spin)


def attempt(deed: Callable[[], object]) -> str:
    """The name of the error that a deed ends in; `done` if in none."""
    try:
        deed()
    except Exception as fault:  # noqa: BLE001 - its name is the answer
        return type(fault).__name__
    return "done"


def send_signal(pid: int) -> str:
    """Whether another process can be reached by a signal, asked of the kernel without Python between."""
    libc = ctypes.CDLL(None, use_errno=True)
    return "done" if libc.kill(pid, signal.SIGCONT) == 0 else os.strerror(ctypes.get_errno())


def in_thread() -> None:
    """Start a thread and wait for it."""
    thread = threading.Thread(target=time.sleep, args=(0.001,))
    thread.start()
    thread.join()


@task(name="sandbox.try_all", isolation="sandbox", max_attempts=1, timeout=20)
def try_all(outside: str) -> dict[str, Any]:
    """Try what a sandbox forbids, and what it allows.

    A test may run it with a wall missing, as root: so each deed aims at something of the test's own, and would do no harm.
    """
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = Path(tempfile.gettempdir()) / "note"
    return {
        "write outside": attempt(lambda: Path(outside, "x").write_text("x")),
        "list outside": attempt(lambda: list(Path(outside).iterdir())),
        "cut a file outside": attempt(lambda: os.truncate(Path(outside, "victim"), 0)),
        "chmod": attempt(lambda: Path(outside, "victim").chmod(0o600)),
        "read the environment of the worker": attempt(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()),
        "run a program": attempt(lambda: subprocess.run(["true"], check=True)),
        "become a program": attempt(lambda: os.execv(sys.executable, [sys.executable, "-V"])),  # noqa: S606 - it must fail
        "signal the worker": send_signal(os.getppid()),
        "limit the worker": attempt(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, mine)),
        "unix socket": attempt(lambda: socket.socket(socket.AF_UNIX)),
        "network": sorted(line.split(":")[0].strip() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]),
        "capabilities": next(line.split()[1] for line in status() if line.startswith("CapEff")),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())) - 1,
        "large file": attempt(lambda: own.write_bytes(b"x" * (2 << 20))),
        "own file": attempt(lambda: own.write_text("mine")),
        "read a module": attempt(lambda: Path(__file__).read_text()),
        "thread": attempt(in_thread),
        "folder": str(own.parent),
        "user": os.getuid(),
    }  # fmt: skip


def status() -> list[str]:
    """What the kernel says of this process."""
    return Path("/proc/self/status").read_text().splitlines()


def say_apart() -> str:
    """Print from a process of one's own, by Python and by the descriptor."""
    print("by python")  # noqa: T201 - that is the point
    os.write(2, b"by descriptor\n")
    time.sleep(0.3)
    raise RuntimeError("and fail, which the log tells")


for _level in ("fork", "sandbox"):
    task(name=f"apart.say_{_level}", isolation=_level, max_attempts=1)(say_apart)


@task(name="apart.say_and_die", isolation="fork", max_attempts=1)
def say_and_die() -> None:
    """Print, then end the own process before it can say that the job is over."""
    print("before the end")  # noqa: T201 - that is the point
    os._exit(3)
