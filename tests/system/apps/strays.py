"""Tasks that leave processes behind, for tests of what becomes of those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rqsup import task

#: Ignores the signals that end a program, notes each that it gets, and says when it is ready to.
STRAY = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def note(number, _):
    with (folder / "signals").open("a") as file:
        file.write(f"{signal.Signals(number).name}\\n")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCONT):
    signal.signal(number, note)
(folder / "stray.part").write_text(str(os.getpid()))
(folder / "stray.part").rename(folder / "stray")
time.sleep(600)
"""


@task(name="strays.leave")
def leave(folder: str, seconds: float) -> int:
    """Start a program that no process group and no parent holds: double fork, new session. Then go on for a while."""
    starter = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STRAY!r}, {folder!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", starter], check=True, start_new_session=True)
    stray = Path(folder, "stray")
    while not stray.exists():
        time.sleep(0.005)
    time.sleep(seconds)
    return int(stray.read_text())


@task(name="strays.orphan")
def orphan(status: int) -> int:
    """Leave a process that ends at once and that nobody of ours waits for; returns its pid."""
    program = f"import os; pid = os.fork(); print(pid, flush=True) if pid else os._exit({status})"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return int(done.stdout)


@task(name="strays.cgroup")
def cgroup() -> str:
    """The cgroup of the worker."""
    return Path("/proc/self/cgroup").read_text()


@task(name="strays.die", max_attempts=1)
def die(number: int) -> None:
    """End the worker by a signal."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    time.sleep(60)
