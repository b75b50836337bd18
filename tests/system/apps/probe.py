"""The application of the system tests: tasks that work, wait, fail and misbehave."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from rqsup import Backoff, current_job, task

AT_ONCE = Backoff(first_s=0.01, cap_s=0.05)


@task(name="probe.note", backoff=AT_ONCE)
def note(path: str, text: str) -> str:
    """Append a line to a file; small appends of several processes do not mix."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


@task(name="probe.nap")
def nap(seconds: float) -> dict[str, object]:
    """Sleep; returns who ran it."""
    time.sleep(seconds)
    job = current_job()
    return {"worker": job.worker, "attempt": job.attempt, "pid": os.getpid()}


@task(name="probe.started_at")
def started_at() -> float:
    """The time at which it started."""
    return time.time()


@task(name="probe.wait_for_stop")
def wait_for_stop() -> str:
    """Run until this worker was told to finish."""
    while not current_job().stopping:
        time.sleep(0.01)
    return "stopping"


@task(name="probe.lease")
def lease() -> tuple[float, bool]:
    """Seconds of lease left, and whether it is lost."""
    return current_job().lease_left_s, current_job().lease_lost


@task(name="probe.nap_async", timeout=5)
async def nap_async(seconds: float) -> str:
    """Sleep on the event loop."""
    await asyncio.sleep(seconds)
    return "awake"


@task(name="probe.fail", max_attempts=3, backoff=AT_ONCE)
def fail(text: str) -> NoReturn:
    """Raise an error."""
    raise ValueError(text)


@task(name="probe.exit_python", max_attempts=1)
def exit_python() -> NoReturn:
    """Raise SystemExit."""
    sys.exit("I want out")


@task(name="probe.raise_base", max_attempts=1)
def raise_base() -> NoReturn:
    """Raise an error that `except Exception` does not catch."""
    raise BaseException("from the base")  # noqa: TRY002 - that is the point


@task(name="probe.interrupt", max_attempts=1)
def interrupt() -> NoReturn:
    """Raise KeyboardInterrupt."""
    raise KeyboardInterrupt


@task(name="probe.segfault")
def segfault() -> None:
    """Read the null pointer."""
    ctypes.string_at(0)


@task(name="probe.exit_hard")
def exit_hard() -> NoReturn:
    """End the process behind Python's back."""
    os._exit(0)


@task(name="probe.exhaust_memory", max_attempts=1)
def exhaust_memory() -> int:
    """Allocate more than the limit that it sets."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, before[1]))
    try:
        return len(bytearray(1 << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@task(name="probe.hog", timeout=0.2)
def hog() -> None:
    """Hold the interpreter's lock in a C loop, past any timeout: no signal handler runs in it."""
    sum(range(10**12))


@task(name="probe.loop_for_ever", timeout=0.2, max_attempts=1)
def loop_for_ever() -> None:
    """Compute in Python, past the timeout."""
    while True:
        pass


@task(name="probe.deaf", timeout=0.2)
def deaf() -> None:
    """Ignore every signal that can be ignored, and every exception."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            time.sleep(1)
        except BaseException:  # noqa: BLE001, S112 - that is the point
            continue


@task(name="probe.grandchild")
def grandchild(path: str) -> None:
    """Leave a process behind in the group, and die."""
    pid = os.fork()
    if pid == 0:
        Path(path).write_text(str(os.getpid()))
        time.sleep(600)
        os._exit(0)
    while not Path(path).exists() or not Path(path).read_text():
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="probe.say")
def say(text: str, lines: int = 1) -> str:
    """Print lines, as Python does."""
    for number in range(lines):
        print(f"{text} {number}" if lines > 1 else text)  # noqa: T201 - that is the point
    return current_job().id


@task(name="probe.say_in_all_ways")
def say_in_all_ways(seconds: float = 0.5) -> str:
    """Print by Python, by C's stdio, by the bare descriptor and by a program; then stay, so that the master reads."""
    print("by python")  # noqa: T201 - that is the point
    print("by stderr", file=sys.stderr)  # noqa: T201 - that is the point
    ctypes.CDLL(None).puts(b"by stdio")
    os.write(2, b"by descriptor\n")
    subprocess.run(["sh", "-c", "echo by program; echo by its stderr >&2"], check=True)
    print("unfinished", end="")  # noqa: T201 - that is the point
    time.sleep(seconds)
    return current_job().id


@task(name="probe.flood")
def flood(megabytes: int) -> float:
    """Print so much in short lines; returns the seconds that it took."""
    began = time.monotonic()
    block = b"0123456789abcdef\n" * 61_680
    for _ in range(megabytes):
        os.write(1, block)
    return time.monotonic() - began
