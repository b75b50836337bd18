"""What the kernel says about a process's memory."""

from __future__ import annotations

import os

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Lines of smaps_rollup that add up to the memory which a process shares with nobody (USS).
PRIVATE = (b"Private_Clean:", b"Private_Dirty:", b"Private_Hugetlb:")


def resident(pid: int) -> int:
    """Resident memory in bytes, shared pages included: an upper bound of `private`, in some 20 microseconds.

    Raises:
        OSError: there is no such process.
    """
    with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 - read for each worker, over and over
        return int(file.read().split()[1]) * PAGE_BYTES


def private(pid: int) -> int:
    """Memory that would be free if the process ended (USS), in bytes; takes 25 microseconds a MiB.

    Raises:
        OSError: there is no such process.
    """
    with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123 - read for each worker, over and over
        lines = file.read().splitlines()
    # A zombie's file is empty: it has no memory any more.
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(PRIVATE))
