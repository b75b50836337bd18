"""Resource limits of a task: how much of the machine one run may take. Enforced by the kernel (setrlimit(2))."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """Each None = as for the worker."""

    #: Bytes of writable memory of the whole process, application included; more is a MemoryError in the job.
    data: int | None = None
    #: Seconds of processor time of one run; then CpuLimit is raised in the job.
    cpu: int | None = None
    #: File descriptors of the process, some of which the worker itself needs; more is an OSError (EMFILE).
    nofile: int | None = None
    #: Bytes of one file; writing beyond is an OSError (EFBIG).
    fsize: int | None = None


#: Names that `@task(limits=…)` takes.
NAMES = tuple(field.name for field in fields(Limits))
#: Fewest descriptors with which a worker can still run a job: its own few, and an event loop's.
FEWEST_FILES = 32
#: Largest value that the kernel takes.
LARGEST = 2**62


def parse_limits(wanted: Mapping[str, int]) -> Limits:
    """Check the limits of a declaration.

    Raises:
        ValueError: a name is unknown, or a value is no whole number of 1 or more.
    """
    for name, value in wanted.items():
        if name not in NAMES:
            raise ValueError(f"unknown limit {name!r}; choose of {', '.join(NAMES)}")
        least = FEWEST_FILES if name == "nofile" else 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            raise ValueError(f"limit {name!r} must be a whole number, {least} or more, not {value!r}")
    return Limits(**wanted)
