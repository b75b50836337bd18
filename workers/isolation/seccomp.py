"""seccomp: a process gives up system calls, for good. Through libseccomp, by its binding `pyseccomp` (rqsup[sandbox])."""

from __future__ import annotations

import errno
import os
from typing import Any

#: Calls that an isolated job has no use for, or that reach what Landlock does not cover.
FORBIDDEN = (
    # The network, and the ring through which calls escape this filter.
    "socket", "io_uring_setup", "io_uring_enter", "io_uring_register",
    # Programs and processes; `clone` is below.
    "fork", "vfork", "execve", "execveat", "setsid", "setpgid",
    # Other processes.
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd",
    "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill", "kcmp", "migrate_pages", "move_pages",
    "setpriority", "ioprio_set",
    # Owner, mode, attributes and times of files, which Landlock leaves alone.
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat", "setxattr", "lsetxattr",
    "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat", "file_setattr",
    "utime", "utimes", "utimensat", "futimesat",
    # Memory and queues that outlive their process.
    "shmget", "msgget", "semget", "mq_open", "mq_unlink", "add_key", "request_key", "keyctl",
    # The file tree and the namespaces.
    "mount", "umount2", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "pivot_root", "chroot", "unshare", "setns", "quotactl", "quotactl_fd", "swapon", "swapoff",
    # The machine.
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "bpf", "perf_event_open",
    "userfaultfd", "fanotify_init", "reboot", "sethostname", "setdomainname", "settimeofday", "clock_settime",
    "clock_settime64", "adjtimex", "clock_adjtime", "clock_adjtime64", "acct", "syslog", "iopl", "ioperm",
    "personality", "vhangup", "nfsservctl", "lookup_dcookie", "setuid", "setgid", "setreuid", "setregid",
    "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
)  # fmt: skip
#: Calls whose first argument names a process. Allowed: the caller's own by its number, and by 0.
OWN_BY_NUMBER = ("kill", "tgkill")
OWN_BY_ZERO = ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")
#: <linux/sched.h>.
CLONE_THREAD = 0x10000
#: Of terminals and console: push a character into the input, as if typed (the second packs it).
TIOCSTI, TIOCLINUX = 0x5412, 0x541C


def build() -> Any:
    """The filter, as far as it is the same for each process: about a millisecond, once per worker.

    Raises:
        ImportError: the package is not installed.
        RuntimeError: libseccomp is not installed.
    """
    import pyseccomp  # optional, and it starts a program to find the library

    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    forbidden = pyseccomp.ERRNO(errno.EPERM)
    for name in FORBIDDEN:
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        # -1 = unknown to this libseccomp. Others below 0 do not exist on this machine.
        if number >= 0:
            rules.add_rule(forbidden, number)
    # No process, but threads. clone3 hides its flags behind a pointer; C libraries fall back to clone.
    rules.add_rule(forbidden, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_THREAD, 0))
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for name in OWN_BY_ZERO:
        rules.add_rule(forbidden, name, pyseccomp.Arg(0, pyseccomp.NE, 0))
    for request in (TIOCSTI, TIOCLINUX):
        rules.add_rule(forbidden, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request))
    return rules


def load(rules: Any) -> None:
    """Put this process behind the filter.

    Raises:
        OSError: the kernel refused.
    """
    import pyseccomp  # loaded already, by `build`

    for name in OWN_BY_NUMBER:
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), name, pyseccomp.Arg(0, pyseccomp.NE, os.getpid()))
    try:
        rules.load()
    except OSError as fault:
        raise OSError(fault.errno, f"the kernel refused the filter ({fault.strerror})") from None
