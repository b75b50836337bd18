"""How a process ended, in words: for a worker, told by its master, and for an isolated job, told by its worker."""

from __future__ import annotations

import signal

#: What a signal means when nobody of ours sent it.
SIGNAL_WORDS = {
    signal.SIGKILL: "killed by SIGKILL, not by rqsup: an operator, or the kernel because memory ran out",
    signal.SIGSEGV: "segmentation fault (SIGSEGV) in C code",
    signal.SIGABRT: "aborted (SIGABRT): C code or the interpreter found itself corrupt",
    signal.SIGBUS: "bus error (SIGBUS) in C code, or a mapped file was cut",
    signal.SIGFPE: "arithmetic error (SIGFPE) in C code",
    signal.SIGILL: "illegal instruction (SIGILL) in C code",
    signal.SIGXCPU: "CPU time limit (SIGXCPU)",
    signal.SIGXFSZ: "file size limit (SIGXFSZ)",
    signal.SIGSYS: "forbidden system call (SIGSYS)",
}


def describe_signal(number: int, *, oom: bool | None = None, peak_bytes: int = 0) -> str:
    """What killed a process, when it was not our own decision.

    Args:
        number: the signal.
        oom: whether the kernel counted an OOM kill; None = it cannot be known.
        peak_bytes: most memory that the process ever held.
    """
    if number not in set(signal.Signals):
        # Real-time signals have no names but the first and the last.
        return f"killed by signal {number}, not by rqsup"
    known = signal.Signals(number)
    if known is signal.SIGKILL and oom is not None:
        if oom:
            return f"killed by the kernel because memory ran out (OOM); it held up to {peak_bytes / 1e6:,.0f} MB"
        return "killed by SIGKILL, not by rqsup: an operator or another program (the kernel counted no OOM kill)"
    return SIGNAL_WORDS.get(known, f"killed by {known.name}, not by rqsup")


def describe_exit(status: int) -> str:
    """What it means that a process ended by itself while it ran a job."""
    return f"the process exited with status {status} in the middle of the job (os._exit or the like)"
