"""Calls made as another user."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable

import pytest

from rqsup.errors import RqsupError

#: Numbers of the system calls on x86-64; the C library's functions would change every thread.
SETRESUID, SETRESGID, SETGROUPS = 117, 119, 116
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or platform.machine() != "x86_64", reason="changes the user: only root may, numbers of x86-64"
)


def as_nobody(call: Callable[[], object]) -> None:
    """Make the call as another user: in a thread, because the kernel keeps users per thread."""
    faults: list[RqsupError] = []
    system = ctypes.CDLL(None).syscall

    def attempt() -> None:
        system(SETGROUPS, 0, None)
        system(SETRESGID, 65534, 65534, 65534)
        system(SETRESUID, 65534, 65534, 65534)
        try:
            call()
        except RqsupError as fault:
            faults.append(fault)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    raise faults[0]
