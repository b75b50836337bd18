"""What the machine did meanwhile: processor time of ours and of others, memory, and whether a round counts."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Cores that others may use during a round; beyond, the round is disturbed.
DISTURBED_CORES = 0.15
#: Longest wait for others to pause, seconds.
QUIET_LIMIT_S = 10.0


@dataclass(slots=True)
class Watch:
    """What others took of the machine during a round."""

    seconds: float = 0.0
    other_cores: float = 0.0

    @property
    def quiet(self) -> bool:
        """True when the round counts."""
        return self.other_cores <= DISTURBED_CORES


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Fills a `Watch` at its end. Processes that end meanwhile have to be waited for by ours."""
    watch, began = Watch(), time.monotonic()
    ours, all_s = family_cpu_s(), machine_cpu_s()
    yield watch
    watch.seconds = time.monotonic() - began
    # Both clocks tick 100 times a second: a little below nothing is nothing.
    watch.other_cores = max(0.0, (machine_cpu_s() - all_s - (family_cpu_s() - ours)) / watch.seconds)


def await_quiet(limit_s: float = QUIET_LIMIT_S) -> None:
    """Wait until others use little; give up after a while, the watch will tell."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with watching() as watch:
            time.sleep(0.3)
        if watch.quiet:
            return


def machine_cpu_s() -> float:
    """Processor time used by everybody since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def family_cpu_s() -> float:
    """Processor time of this process, of all that it waited for, and of all that live below it."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    below = psutil.Process().children(recursive=True)
    return sum(one.ru_utime + one.ru_stime for one in spent) + sum(_with_reaped_s(process) for process in below)


def _with_reaped_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def tree(roots: Iterable[int]) -> list[psutil.Process]:
    """The living processes with these ids and all below them."""
    found: dict[int, psutil.Process] = {}
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(root)
            found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    return [one for one in found.values() if one.is_running()]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Processor time of living processes, to the nanosecond where the kernel tells it."""
    return sum(_threads_s(process.pid) for process in processes)


def _threads_s(pid: int) -> float:
    total = 0
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are all that is needed, many times
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


def pss_mib(processes: Iterable[psutil.Process], *, without: Path | None = None) -> float:
    """Memory of processes in MiB: a page that several share counts once in all; mappings of one file may be left out."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_full_info().pss
        if without is not None:
            total -= mapped_bytes(process.pid, without)
    return total / (1 << 20)


def mapped_bytes(pid: int, path: Path) -> int:
    """Bytes of a process (as PSS) that are pages of this file; 0 when it has ended."""
    with contextlib.suppress(OSError):
        return pss_of(Path(f"/proc/{pid}/smaps").read_text(), str(path))
    return 0


def pss_of(smaps: str, path: str) -> int:
    r"""Bytes (PSS) of one file's mappings, from the text of /proc/<pid>/smaps.

    >>> text = "1000-2000 rw-s 0000 00:1a 7   /dev/shm/marks\nSize: 8 kB\nPss: 6 kB\n3000-4000 rw-p 0 00:00 0\nPss: 9 kB"
    >>> pss_of(text, "/dev/shm/marks")
    6144
    """
    total, counts = 0, False
    for line in smaps.splitlines():
        words = line.split(maxsplit=5)
        if not words[0].endswith(":"):  # the head of the next mapping; its path is the sixth word, if it has one
            counts = len(words) == 6 and words[5] == path
        elif counts and words[0] == "Pss:":
            total += int(words[1]) * 1024
    return total
