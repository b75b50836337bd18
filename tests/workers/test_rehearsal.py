"""What a worker's rehearsal leaves behind: nothing but warm code. Each case needs a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading
from rqsup.settings import Settings, WorkerSettings
from rqsup.task import task_names
from rqsup.workers.rehearsal import JOBS, rehearse
from rqsup.workers.loop import Loop

def look():
    handlers = [signal.getsignal(number) for number in range(1, signal.NSIG)]
    return os.listdir("/proc/self/fd"), handlers, signal.getitimer(signal.ITIMER_REAL)[0], task_names(), threading.enumerate()

before = look()
ran = rehearse(Settings(workers=WorkerSettings({settings})), "rehearsal")

assert ran == JOBS, ran
assert look() == before
"""


@pytest.mark.parametrize(
    "settings",
    ["", "prefetch=1", "settle='each'", "concurrency=8", "result_ttl=0", "crash_limit=1", "queues=['a', 'b']"],
)
def test_a_rehearsal_runs_every_job_and_leaves_nothing_behind(settings: str) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM.format(settings=settings)], check=True)


def test_the_code_of_a_worker_is_warm_after_a_rehearsal() -> None:
    program = PROGRAM.format(settings="") + (
        "code = Loop._run_one.__code__\n"
        "adaptive = getattr(code, '_co_code_adaptive', None)\n"
        "assert adaptive is None or adaptive != code.co_code, 'the interpreter has not touched it'\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)
