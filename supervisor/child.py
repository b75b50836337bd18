"""One worker as the master sees it, and what its death meant. The code it runs is in rqsup.workers."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass, field

from rqsup.supervisor.drain import OutputPipe
from rqsup.supervisor.plan import ChildView, Overdue, Phase
from rqsup.workers.boot import EXIT_BROKEN, Assignment
from rqsup.workers.slot import CurrentJob, Order, Slot, WorkerState


@dataclass(frozen=True, slots=True)
class Verdict:
    """Our own decision to kill a worker, noted before the signal is sent."""

    reason: str
    #: True when the job it was in is to blame.
    charge: bool
    #: Id of the job that shall not run again: an operator had it killed.
    condemned: str = ""


@dataclass(slots=True)
class Child:
    """One worker process, from the request to fork it until it is reaped."""

    assignment: Assignment
    slot: Slot
    channel: socket.socket
    forked_at: float
    phase: Phase = Phase.STARTING
    deadline: float | None = None
    pid: int = 0
    pidfd: int = -1
    #: Start time of the process in clock ticks since boot: with the pid, it names the process for ever.
    started_ticks: int = 0
    verdict: Verdict | None = None
    #: What its jobs print; None = not captured.
    output: OutputPipe | None = None
    was_ready: bool = field(default=False)

    @property
    def worker(self) -> str:
        """Its identity in Redis."""
        return self.assignment.worker

    @property
    def number(self) -> int:
        """Its number among the pool's workers, for people."""
        return self.assignment.number

    def view(self) -> ChildView:
        """What the plan needs to know of it."""
        job = self.slot.current_job()
        return ChildView(
            worker=self.worker,
            generation=self.assignment.generation,
            phase=self.phase,
            busy=job is not None,
            deadline=self.deadline,
            hard_deadline=job.hard_deadline if job else None,
        )

    def state(self) -> str:
        """Its state in a word, for people."""
        if self.phase is not Phase.READY:
            return str(self.phase)
        if self.slot.current_job() is not None:
            return "busy"
        return "quiet" if self.slot.state == WorkerState.QUIET else "idle"

    def close(self) -> None:
        """Give back what the master holds of it."""
        self.channel.close()
        if self.output is not None:
            self.output.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended."""

    worker: str
    number: int
    pid: int
    generation: int
    #: In words, for the job, the log and the operator.
    cause: str
    #: The job it was in, if any.
    job: CurrentJob | None
    #: True when that job is charged with a crash.
    charged: bool
    was_ready: bool
    #: True when it left on the master's order, as it should.
    orderly: bool
    #: When the master saw it, CLOCK_MONOTONIC.
    seen_at: float
    #: Id of the job that goes to the dead letters, because an operator had it killed.
    condemned: str = ""


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


def judge(child: Child, ended: os.waitid_result, seen_at: float) -> Death:
    """What a worker's death meant, in words, and whether its job is to blame."""
    job = child.slot.current_job()
    left = ended.si_code == os.CLD_EXITED and ended.si_status == 0 and job is None
    # One that left unasked counts as a failure: else a worker that ends at its start would be replaced without pause.
    orderly = left and child.slot.order == Order.LEAVE
    return Death(
        worker=child.worker,
        number=child.number,
        pid=child.pid,
        generation=child.assignment.generation,
        cause=_in_words(child.verdict, ended, job),
        job=job,
        charged=job is not None and (child.verdict is None or child.verdict.charge),
        was_ready=child.was_ready,
        orderly=orderly,
        seen_at=seen_at,
        condemned=child.verdict.condemned if child.verdict else "",
    )


def _in_words(verdict: Verdict | None, ended: os.waitid_result, job: CurrentJob | None) -> str:
    if verdict is not None:
        return verdict.reason if verdict.reason.startswith("killed") else f"{verdict.reason}; killed by its master"
    if ended.si_code == os.CLD_EXITED:
        if job is not None:
            return f"the process exited with status {ended.si_status} in the middle of the job (os._exit or the like)"
        if ended.si_status == EXIT_BROKEN:
            return "the worker's own code failed; its log has the traceback"
        return f"exited with status {ended.si_status}"
    if ended.si_status not in set(signal.Signals):
        # Real-time signals have no names but the first and the last.
        return f"killed by signal {ended.si_status}, not by rqsup"
    number = signal.Signals(ended.si_status)
    return SIGNAL_WORDS.get(number, f"killed by {number.name}, not by rqsup")


def overdue_verdict(overdue: Overdue, child: Child, now: float) -> Verdict:
    """Why the clock ends a worker, in words."""
    job = child.slot.current_job()
    if overdue is Overdue.JOB and job is not None:
        allowed, grace = job.soft_deadline - job.started, job.hard_deadline - job.soft_deadline
        ran = now - job.started
        return Verdict(
            f"hard timeout: ran {ran:.1f} s, allowed are {allowed:g} s and {grace:g} s of grace", charge=True
        )
    return Verdict(str(overdue), charge=False)
