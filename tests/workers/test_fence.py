"""Resource limits around a job, in a process of their own: this one must keep its limits."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import os, resource, signal, sys, tempfile, time
from rqsup.errors import CpuLimit
from rqsup.limits import Limits
from rqsup.workers.fence import Fence

# A bound of processor time, not of the clock: a busy machine makes it late, not wrong.
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
KINDS = (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU)

def shown():
    return [resource.getrlimit(kind) for kind in KINDS], signal.getsignal(signal.SIGXCPU)
"""


def play(code: str) -> str:
    """Run code in a fresh interpreter; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("limits", "job", "fault"),
    [
        ("data=256 << 20", "bytearray(1 << 30)", "MemoryError"),
        ("fsize=4096", "tempfile.TemporaryFile(buffering=0).write(bytes(4096)) and tempfile.TemporaryFile().write(bytes(1 << 20))", "OSError"),
        ("nofile=64", "[os.dup(0) for _ in range(100)]", "OSError"),
        ("cpu=1", "sum(1 for _ in iter(int, 1))", "CpuLimit"),
    ],
)  # fmt: skip
def test_a_job_beyond_its_limit_gets_an_error_and_afterwards_all_is_as_before(
    limits: str, job: str, fault: str
) -> None:
    told = play(f"""
        before = shown()
        fence = Fence(Limits({limits}))
        fence.close()
        inside = shown()
        try:
            {job}
        except BaseException as error:
            told = type(error).__name__
        else:
            told = "no error"
        fence.open()
        fence.open()
        assert shown() == before, (before, shown())
        assert inside != before
        print(told)
    """)

    assert told == fault


def test_processor_time_counts_from_the_job_and_not_from_the_process() -> None:
    told = play("""
        end = time.process_time() + 1.5
        while time.process_time() < end:
            pass
        fence = Fence(Limits(cpu=2))
        fence.close()
        begun = time.process_time()
        try:
            while True:
                pass
        except CpuLimit as error:
            used = time.process_time() - begun
            fence.open()
            # The kernel's ticks and the process's clock differ, on a busy machine by more than half a second.
            assert 0.5 <= used < 4, used
            print(error)
    """)

    assert told == "used more than 2 s of processor time"


def test_a_job_that_swallows_the_first_error_meets_the_next() -> None:
    told = play("""
        fence = Fence(Limits(cpu=1))
        fence.close()
        met = 0
        while met < 2:
            try:
                while True:
                    pass
            except CpuLimit:
                met += 1
        fence.open()
        print(met)
    """)

    assert told == "2"


def test_a_stricter_limit_of_the_process_stays() -> None:
    told = play("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))
        fence = Fence(Limits(nofile=1000))
        fence.close()
        inside = resource.getrlimit(resource.RLIMIT_NOFILE)
        fence.open()
        print(inside, resource.getrlimit(resource.RLIMIT_NOFILE))
    """)

    assert told == "(60, 60) (50, 60)"


def test_a_job_that_lowers_its_hard_limit_does_not_break_the_worker() -> None:
    told = play("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
        fence = Fence(Limits(nofile=80))
        fence.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (70, 90))
        fence.open()
        print(resource.getrlimit(resource.RLIMIT_NOFILE))
    """)

    assert told == "(90, 90)"
