"""Landlock: a process gives up all files but some, for good. The kernel's own three calls, by ctypes.

Numbers from the kernel's <linux/landlock.h> and Documentation/userspace-api/landlock.rst. Why not a package: decision 8.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from rqsup.workers.kernel import LIBC, check

#: System calls; the same on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
#: Flag of the first: answer the version of the interface (ABI).
RULESET_VERSION = 1
#: Kind of rule: what may be done beneath a path.
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
#: Rights that came with later versions: rename across folders, cut a file, control a device.
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
#: All rights of version 1: the four above, and to remove and make each kind of entry.
FIRST_RIGHTS = (1 << 13) - 1
SINCE = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}
#: Rights that a file can have; the others are a folder's.
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
#: Device nodes are nobody's to make, even in a folder of one's own.
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11

#: What a readable place allows, and a writable one. Neither allows to run programs.
READ = READ_FILE | READ_DIR
WRITE = (FIRST_RIGHTS | REFER | TRUNCATE) & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK)

#: Version 4: TCP ports to bind and connect to. Version 6: abstract sockets and signals to processes outside.
NET_RIGHTS = 3
SCOPES = 3


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Version of the kernel's Landlock.

    Raises:
        OSError: it has none, or it is off.
    """
    return check(LIBC.syscall(CREATE_RULESET, None, 0, RULESET_VERSION), "Landlock")


def restrict(rights: Iterable[tuple[str, int]]) -> None:
    """Leave this process only these rights, each beneath its path; paths that are not there are passed over.

    Raises:
        OSError: the kernel refused.
    """
    abi = version()
    handled = FIRST_RIGHTS | sum(right for since, right in SINCE.items() if abi >= since)
    attributes = _Ruleset(handled, NET_RIGHTS if abi >= 4 else 0, SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = check(LIBC.syscall(CREATE_RULESET, ctypes.byref(attributes), size, 0), "Landlock rules")
    try:
        for path, wanted in rights:
            _allow(ruleset, path, wanted & handled)
        check(LIBC.syscall(RESTRICT_SELF, ruleset, 0), "Landlock restriction")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        # What is not there cannot be read; a right to it would change nothing.
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= FILE_RIGHTS
        rule = _PathBeneath(rights, place)
        check(LIBC.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0), f"Landlock rule for {path}")
    finally:
        os.close(place)
