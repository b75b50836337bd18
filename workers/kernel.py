"""The calls to the kernel that Python has no names for. Numbers and structures are those of the kernel's uapi headers."""

from __future__ import annotations

import ctypes
import os
import signal

#: The C library, with `errno` kept for `ctypes.get_errno`.
LIBC = ctypes.CDLL(None, use_errno=True)

#: <linux/prctl.h>: signal to get when the parent dies; take in orphaned descendants; give up privileges for good.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
#: <linux/sched.h>.
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
#: <linux/capability.h>: version 3, two structures of three words for the process itself.
CAPABILITY_VERSION = 0x20080522


def check(result: int, what: str) -> int:
    """Pass a call's result on.

    Raises:
        OSError: the kernel refused.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def die_with_parent(expected_parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once if it already has."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Between fork and prctl the parent may have died, and then no signal would ever come.
    if os.getppid() != expected_parent:
        os._exit(0)


def adopt_orphans(*, adopt: bool) -> None:
    """Become the parent of descendants whose own parent ends, or leave them to the next above again."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


def renounce_privileges() -> None:
    """Drop all capabilities, and gain none by running a program.

    Raises:
        OSError: the kernel refused.
    """
    check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    check(LIBC.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def leave_network() -> None:
    """Enter a network that has no interface, not even to this machine.

    Raises:
        OSError: the kernel, or a service manager's filter, refused.
    """
    user, group = os.getuid(), os.getgid()
    if LIBC.unshare(CLONE_NEWNET) == 0:
        return
    # Without the right to it in the machine's own user namespace, it is granted in a private one.
    check(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET), "unshare(CLONE_NEWNET)")
    # Else this process would look to itself like the user nobody.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - no path arithmetic, one write
            file.write(text)


def hide_memory(address: int, length: int) -> None:
    """Put empty private memory in the place of shared memory.

    Raises:
        OSError: the kernel refused.
    """
    call = LIBC.mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    # <linux/mman.h>: PROT_READ; MAP_PRIVATE, MAP_FIXED and MAP_ANONYMOUS.
    if call(address, length, 0x1, 0x2 | 0x10 | 0x20, -1, 0) != address:
        raise OSError(ctypes.get_errno(), "mmap over the scoreboard failed")
