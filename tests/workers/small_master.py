"""A master for the tests of `boot`: forks workers, and lives until its standard input ends.

Arguments: URL, namespace, number of workers. Prints the workers' pids. Workers are `small.1`, `small.2` …
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from mmap import mmap
from pathlib import Path
from typing import Any

from rqsup.settings import RedisSettings, Settings
from rqsup.task import task
from rqsup.workers.assignment import Assignment
from rqsup.workers.boot import MASTERS_VARIABLES, Descriptors, run_worker
from rqsup.workers.slot import STRIDE

PR_GET_PDEATHSIG = 2


@task(name="boot.facts")
def facts() -> dict[str, Any]:
    """What a job can see of its process."""
    death_signal = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_PDEATHSIG, ctypes.byref(death_signal))
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "group": os.getpgrp(),
        "session": os.getsid(0),
        "death_signal": death_signal.value,
        "variables": [name for name in MASTERS_VARIABLES if name in os.environ],
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text().strip(),
        "faulthandler": faulthandler.is_enabled(),
        "gc": gc.isenabled(),
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "threads": threading.active_count(),
        "random": random.random(),
        "ignored_by_programs": ignored_by_programs(),
    }


def ignored_by_programs() -> int:
    """Signals that a program started by the job ignores, as the kernel's mask."""
    text = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    line = next(line for line in text.splitlines() if line.startswith("SigIgn:"))
    return int(line.split()[1], 16) & ((1 << signal.SIGTERM - 1) | (1 << signal.SIGINT - 1) | (1 << signal.SIGHUP - 1))


@task(name="boot.close_streams")
def close_streams() -> None:
    """What careless jobs do."""
    sys.stdout.close()
    sys.stderr.close()


def main() -> None:
    """Fork, tell, wait."""
    url, namespace, count = sys.argv[1:]
    settings = Settings(namespace=namespace, redis=RedisSettings(url=url))
    memory = mmap(-1, int(count) * STRIDE)
    random.seed(1)
    gc.disable()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    pids, ends = [], []
    for index in range(int(count)):
        mine, its = socket.socketpair()
        master = os.getpid()
        pid = os.fork()
        if pid == 0:
            mine.close()
            assignment = Assignment(index + 1, f"small.{index + 1}", index, 1, master)
            run_worker(assignment, settings, memory, Descriptors(its.detach()))
        its.close()
        pids.append(pid)
        ends.append(mine)
    ready = [end.recv(1).decode() for end in ends]
    print(json.dumps({"pids": pids, "ready": ready}), flush=True)  # noqa: T201 - the test reads it
    if sys.stdin.readline() == "close\n":
        for end in ends:
            end.close()
        print(json.dumps([os.waitpid(pid, 0)[1] for pid in pids]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
