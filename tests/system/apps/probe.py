"""The application of the system tests: tasks that work, wait, fail and misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from rqsup import Backoff, JobShutdown, current_job, task
from rqsup.errors import CpuLimit

AT_ONCE = Backoff(first_s=0.01, cap_s=0.05)


@task(name="probe.note", backoff=AT_ONCE)
def note(path: str, text: str) -> str:
    """Append a line to a file; small appends of several processes do not mix."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


@task(name="probe.nothing")
def nothing() -> None:
    """Do nothing: the tiniest job."""


@task(name="probe.nap")
def nap(seconds: float) -> dict[str, object]:
    """Sleep; returns who ran it."""
    time.sleep(seconds)
    job = current_job()
    return {"worker": job.worker, "attempt": job.attempt, "pid": os.getpid()}


@task(name="probe.wait_for_file")
def wait_for_file(gate: str) -> None:
    """Stay in the job until the file is gone."""
    while Path(gate).exists():
        time.sleep(0.02)


@task(name="probe.program")
def program(seconds: float) -> int:
    """Run another program, in this job's process group."""
    return subprocess.run(["sleep", str(seconds)], check=False).returncode


@task(name="probe.until")
def until(path: str) -> dict[str, object]:
    """Run until the file is there; returns who ran it."""
    while not Path(path).exists():
        time.sleep(0.01)
    return nap(0)


task(name="probe.until_apart", isolation="fork")(until)


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


@task(name="probe.wait_for")
def wait_for(path: str) -> dict[str, object]:
    """Run until a file is there; returns who ran it."""
    while not Path(path).exists():
        time.sleep(0.01)
    return nap(0)


@task(name="probe.clean_up")
def clean_up(path: str) -> None:
    """Sleep, and leave a note when it has to give up."""
    try:
        time.sleep(600)
    except JobShutdown:
        Path(path).write_text(f"cleaned up, stopping={current_job().stopping}")
        raise


@task(name="probe.stubborn")
def stubborn() -> None:
    """Swallow everything that could end it."""
    while True:
        try:
            time.sleep(600)
        except BaseException:  # noqa: BLE001, S112 - that is the point
            continue


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


@task(name="probe.eat", timeout=30)
def eat(megabytes: int) -> int:
    """Touch so much memory."""
    return len(bytearray(megabytes << 20))


@task(name="probe.swallow", timeout=0.2)
def swallow() -> str:
    """Ignore its soft timeout, and return."""
    try:
        while True:
            time.sleep(0.01)
    except BaseException:  # noqa: BLE001 - that is the point
        return "went on"


@task(name="probe.die_alone")
def die_alone(folder: str) -> None:
    """Note the process, and die by a signal of C code."""
    with (Path(folder) / "fragile").open("a") as file:
        file.write(f"{os.getpid()}\n")
    ctypes.string_at(0)


@task(name="probe.pid")
def pid(folder: str) -> None:
    """Note the process."""
    with (Path(folder) / "others").open("a") as file:
        file.write(f"{os.getpid()}\n")


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


@task(name="probe.say_and_fall")
def say_and_fall() -> None:
    """Print without a line break, then read the null pointer."""
    os.write(1, b"last words")
    ctypes.string_at(0)


@task(name="probe.say_around")
def say_around(path: str) -> str:
    """Print, leave a line open until the file is there, end the line, print again."""
    print("before")  # noqa: T201 - that is the point
    os.write(1, b"begun and ")
    while not Path(path).exists():
        time.sleep(0.01)
    os.write(1, b"ended\n")
    print("after")  # noqa: T201 - that is the point
    return current_job().id


@task(name="probe.print_apart", isolation="fork")
def print_apart(text: str, die: bool = False) -> str:
    """Print from a process of its own, which may die then."""
    print(text, flush=True)  # noqa: T201 - that is the point
    if die:
        os.kill(os.getpid(), signal.SIGKILL)
    return current_job().id


@task(name="probe.flood")
def flood(megabytes: int) -> float:
    """Print so much in short lines; returns the seconds that it took."""
    began = time.monotonic()
    block = b"0123456789abcdef\n" * 61_680
    for _ in range(megabytes):
        os.write(1, block)
    return time.monotonic() - began


#: What `probe.leak` never gives back.
LEAKED: list[bytearray] = []


@task(name="probe.leak", max_attempts=1)
def leak(mib: int, seconds: float = 0.0) -> dict[str, object]:
    """Take memory for ever, then sleep; returns who ran it."""
    LEAKED.append(bytearray(os.urandom(1024)) * (mib << 10))
    return nap(seconds)


@task(name="probe.leak_until", max_attempts=1)
def leak_until(mib: int, path: str) -> dict[str, object]:
    """Take memory for ever, then run until the file is there; returns who ran it."""
    leak(mib)
    return until(path)


@task(name="probe.limited_data", max_attempts=1, limits={"data": 400 << 20})
def limited_data() -> int:
    """Allocate more than its limit."""
    return len(bytearray(1 << 30))


@task(name="probe.limited_cpu", max_attempts=1, limits={"cpu": 1})
def limited_cpu() -> None:
    """Compute for longer than its limit."""
    while True:
        pass


@task(name="probe.limited_cpu_async", max_attempts=1, limits={"cpu": 1})
async def limited_cpu_async() -> None:
    """The same on the event loop."""
    while True:  # noqa: ASYNC110 - it waits for nothing
        await asyncio.sleep(0)


@task(name="probe.limited_cpu_swallowed", max_attempts=1, limits={"cpu": 1})
def limited_cpu_swallowed() -> None:
    """Swallow the limit, as asyncio does with an exception out of its own code, and compute no more."""
    try:
        limited_cpu.function()
    except CpuLimit:
        time.sleep(600)


@task(name="probe.limited_nofile", max_attempts=1, limits={"nofile": 64})
def limited_nofile() -> int:
    """Open more files than its limit."""
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
    return len(files)


@task(name="probe.limited_fsize", max_attempts=1, limits={"fsize": 1 << 20})
def limited_fsize(path: str) -> int:
    """Write a longer file than its limit."""
    return Path(path).write_bytes(bytes(2 << 20))


@task(name="probe.rlimits")
def rlimits() -> list[tuple[int, int]]:
    """The limits of this process."""
    return [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("DATA", "CPU", "NOFILE", "FSIZE")]


#: Jobs of `probe.together` that run in this process now, and the most that ever did.
together_now = together_most = 0


@task(name="probe.together", timeout=30)
async def together(seconds: float, gate: str = "") -> tuple[int, int, str]:
    """Wait, first for a file; returns who ran it, how many did at most so far, and the job of the context after the wait."""
    global together_now, together_most  # noqa: PLW0603 - one event loop, one thread
    together_now += 1
    together_most = max(together_most, together_now)
    try:
        while gate and not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
            await asyncio.sleep(0.01)
        await asyncio.sleep(seconds)
        return os.getpid(), together_most, current_job().id
    finally:
        together_now -= 1


@task(name="probe.alone")
def alone() -> int:
    """How many of `probe.together` run beside it."""
    return together_now


@task(name="probe.until_async", timeout=60)
async def until_async(path: str) -> int:
    """Wait until the file is there; returns who ran it."""
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    return os.getpid()


@task(name="probe.clean_up_async", timeout=60)
async def clean_up_async(folder: str) -> None:
    """Wait for its worker's stop, and note in a file of its id that it could clean up."""
    Path(folder, f"{current_job().id}.begun").touch()  # noqa: ASYNC240 - a local folder
    try:
        await asyncio.sleep(600)
    except JobShutdown:
        Path(folder, f"{current_job().id}.cleaned").touch()  # noqa: ASYNC240 - a local folder
        raise


@task(name="probe.over_time_async", timeout=0.2, max_attempts=1)
async def over_time_async() -> None:
    """Run longer than allowed, and let itself be cancelled."""
    await asyncio.sleep(600)


@task(name="probe.block_async", timeout=0.2, max_attempts=1)
async def block_async(path: str) -> None:
    """Wait until the file is there, then block the event loop."""
    await until_async.function(path)
    time.sleep(600)  # noqa: ASYNC251 - that is the point


@task(name="probe.stubborn_async", timeout=0.2, max_attempts=1)
async def stubborn_async() -> None:
    """Ignore each cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


@task(name="probe.die_in_step")
async def die_in_step(path: str) -> None:
    """Kill its worker, as soon as the file is there."""
    await until_async.function(path)
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="probe.die_between_steps")
async def die_between_steps() -> None:
    """Have its worker killed while no coroutine executes."""
    subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -9 {os.getpid()}"])  # noqa: ASYNC220 - that is the point
    await asyncio.sleep(600)


@task(name="probe.raise_async", max_attempts=1)
async def raise_async(kind: str, apart: bool = False) -> None:
    """Raise what would end an event loop, itself or in a task that it started."""
    faults = [SystemExit("I want out"), KeyboardInterrupt(), asyncio.CancelledError()]
    fault = next(fault for fault in faults if type(fault).__name__ == kind)

    async def fall() -> None:
        raise fault

    if apart:
        falling = asyncio.create_task(fall())
        await asyncio.sleep(600)
        del falling
    raise fault


@task(name="probe.leave_task_behind")
async def leave_task_behind(path: str) -> None:
    """Return while a task that it started still runs."""

    async def stay() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            Path(path).touch()  # noqa: ASYNC240 - a local folder

    kept.append(asyncio.create_task(stay()))
    await asyncio.sleep(0)


#: Tasks of the event loop, so that nothing else ends them.
kept: list[asyncio.Task[None]] = []


@task(name="probe.noop_async")
async def noop_async() -> None:
    """Nothing."""


@task(name="probe.say_async")
async def say_async(text: str) -> None:
    """Print, and let others print in between."""
    for turn in range(3):
        print(f"{text} {turn}")  # noqa: T201 - that is the point
        await asyncio.sleep(0.01)
