"""What a pool holds of the machine: descriptors, memory, shared memory, processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a master holds at a quiet moment."""

    fds: int
    memfds: int
    rss_mb: float
    threads: int
    processes: int
    #: Files in /dev/shm, of whomever.
    shared: int


def read_holdings(master: int) -> Holdings:
    """Look at a master, and at the processes below it."""
    family = psutil.Process(master)
    targets = [_target(entry) for entry in Path(f"/proc/{master}/fd").iterdir()]
    return Holdings(
        fds=len(targets),
        memfds=sum(target.startswith("/memfd:") for target in targets),
        rss_mb=round(family.memory_info().rss / 1e6, 1),
        threads=family.num_threads(),
        processes=len(family.children(recursive=True)),
        shared=len(list(Path("/dev/shm").iterdir())),
    )


def living_in(folder: Path) -> list[int]:
    """Processes whose working directory this is, wherever they stand in the tree of processes."""
    processes = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [int(entry.name) for entry in processes if _target(entry / "cwd") == str(folder)]


def _target(link: Path) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - the name of a memfd is no path
    except OSError:
        return ""
