"""One worker as the master sees it, and what its death meant. The code it runs is in rqsup.workers."""

from __future__ import annotations

import os
import random
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from rqsup.settings import Settings
from rqsup.supervisor.blackbox import BlackBox
from rqsup.supervisor.drain import OutputPipe
from rqsup.supervisor.patience import Patience, Stillness
from rqsup.supervisor.plan import ChildView, Overdue, Phase
from rqsup.workers.assignment import EXIT_BROKEN, Assignment
from rqsup.workers.endings import describe_exit, describe_signal
from rqsup.workers.slot import CurrentJob, Order, Slot, Spent, WorkerState

#: Seconds that a worn worker has to settle a job which ended just before its hard deadline.
SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Our own decision to kill a worker, noted before the signal is sent."""

    reason: str
    #: True when the job it was in is to blame.
    charge: bool
    #: That job's id; empty = whichever it is in when it dies.
    job: str = ""
    #: True when that job shall not run again: an operator had it killed.
    condemn: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a dead worker left behind."""

    #: Where its threads were, when it was asked before it was killed, or wrote it down while it died.
    stack: str = ""
    #: Whether the kernel counted an OOM kill; None = it cannot be known, or was no question.
    oom: bool | None = None
    #: Most memory (RSS) that it ever held.
    peak_bytes: int = 0


NOTHING_LEFT = Evidence()


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
    #: Why its job was told to give up; empty = it was not.
    abandoned: str = ""
    #: Why it will not become ready, by its own account.
    unfit: str = ""
    #: What its jobs print; None = not captured.
    output: OutputPipe | None = None
    was_ready: bool = field(default=False)
    #: Its own random number in [0, 1), so that equal workers are not worn at the same time.
    luck: float = field(default_factory=random.random)
    #: Private memory in bytes when it was last sampled; 0 = it was not, or is far from any limit.
    memory: int = 0
    #: Why it should be replaced by a fresh one; empty = it should not.
    worn: str = ""
    box: BlackBox | None = None
    #: What it answered when it was asked where it hangs.
    stack: str = ""
    oom_counter: Path | None = None
    patience: Patience | None = None
    stillness: Stillness = field(default_factory=Stillness)

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
            abandoned=bool(self.abandoned),
            worn=bool(self.worn),
            idle_deadline=self._idle_deadline(busy=job is not None),
        )

    def _idle_deadline(self, *, busy: bool) -> float | None:
        """When it has to have turned its loop; None while it owes no turn."""
        slot = self.slot
        due = self.phase is Phase.READY and not busy and slot.state != WorkerState.QUIET and slot.order == Order.WORK
        mark = (slot.turned, slot.sequence) if due else None
        self.stillness.observe(mark, time.monotonic())
        return self.patience.deadline(self.stillness) if self.patience and due else None

    def state(self) -> str:
        """Its state in a word, for people."""
        if self.phase is not Phase.READY:
            return str(self.phase)
        if self.slot.current_job() is not None:
            return "busy"
        return "quiet" if self.slot.state == WorkerState.QUIET else "idle"

    def introduction(self, now: float) -> dict[str, object]:
        """What the log says of it when it becomes ready."""
        return {
            "worker": self.number, "pid": self.pid, "generation": self.assignment.generation,
            "after_ms": round(1000 * (now - self.forked_at), 1),
        }  # fmt: skip

    def descriptors(self) -> list[int]:
        """What it gets at its fork besides its channel: black box, and output pipe if there is one."""
        return [self.box.descriptor if self.box else -1, *([self.output.its] if self.output else [])]

    def close(self) -> None:
        """Give back what the master holds of it."""
        self.channel.close()
        if self.output is not None:
            self.output.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self.box:
            self.box.close()


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
    #: Where its threads were; empty when nobody asked and it died in silence.
    stack: str = ""
    #: Id of the job that goes to the dead letters, because an operator had it killed.
    condemned: str = ""
    #: True when the kernel killed it for lack of memory.
    oom: bool = False
    #: True when it ran several jobs at once, and each of them may have caused its end.
    suspects: bool = False


def judge(child: Child, ended: os.waitid_result, seen_at: float, evidence: Evidence = NOTHING_LEFT) -> Death:
    """What a worker's death meant, in words, and whether its job is to blame."""
    job = child.slot.current_job()
    left = ended.si_code == os.CLD_EXITED and ended.si_status == 0 and job is None
    # One that left unasked counts as a failure: else a worker that ends at its start would be replaced without pause.
    orderly = left and (child.slot.order >= Order.LEAVE or child.slot.spent != Spent.NO)
    verdict = child.verdict
    # Memory belongs to no one of several jobs, and neither does a death between two of their steps.
    to_blame = job is not None and (verdict is None or (verdict.charge and verdict.job in {"", job.id}))
    suspects = to_blame and not (verdict.job or child.slot.jobs <= 1 if verdict else child.slot.is_certain)
    return Death(
        worker=child.worker,
        number=child.number,
        pid=child.pid,
        generation=child.assignment.generation,
        cause=_own_account(child, left=left) or _in_words(verdict, ended, job, evidence),
        job=job,
        charged=to_blame and not suspects,
        was_ready=child.was_ready,
        orderly=orderly,
        seen_at=seen_at,
        stack="" if orderly else evidence.stack,
        condemned=verdict.job if verdict and verdict.condemn else "",
        oom=bool(evidence.oom),
        suspects=suspects,
    )


def _own_account(child: Child, *, left: bool) -> str:
    """Why it ended, where its exit status would not tell; empty where it does."""
    if child.unfit:
        return f"its check failed: {child.unfit}"
    return f"{child.abandoned}; its job gave up" if child.abandoned and left else ""


def _in_words(verdict: Verdict | None, ended: os.waitid_result, job: CurrentJob | None, evidence: Evidence) -> str:
    if verdict is not None:
        return verdict.reason if verdict.reason.startswith("killed") else f"{verdict.reason}; killed by its master"
    if ended.si_code == os.CLD_EXITED:
        if job is not None:
            return describe_exit(ended.si_status)
        if ended.si_status == EXIT_BROKEN:
            return "the worker's own code failed; its log has the traceback"
        return f"exited with status {ended.si_status}"
    return describe_signal(ended.si_status, oom=evidence.oom, peak_bytes=evidence.peak_bytes)


def overdue_verdict(overdue: Overdue, child: Child, now: float, occasion: str = "") -> Verdict:
    """Why the clock ends a worker, in words. `occasion` is why it had to leave at all."""
    job = child.slot.current_job()
    if overdue is Overdue.JOB and job is not None:
        allowed, grace = job.soft_deadline - job.started, job.hard_deadline - job.soft_deadline
        reason = f"hard timeout: ran {now - job.started:.1f} s, allowed are {allowed:g} s and {grace:g} s of grace"
        # Of several at once, one that hangs outside of all their steps is not to be known.
        return Verdict(reason, charge=True, job=job.id if child.slot.is_certain else "")
    if overdue is Overdue.IDLE:
        return Verdict(f"{overdue} for {now - child.stillness.since:.1f} s", charge=False)
    return Verdict(f"{occasion}: {overdue}" if occasion else str(overdue), charge=False)


def occasion(child: Child, *, stopping: bool, wanted: int) -> str:
    """Why a draining worker has to leave, in a word."""
    if child.phase is not Phase.DRAINING:
        return ""
    if stopping:
        return "stop by the operator"
    return "reload" if child.assignment.generation != wanted else "fewer workers wanted"


def drain_deadline(child: Child, now: float, settings: Settings) -> float:
    """Until when a worker that is told to leave may finish its job."""
    deadline = now + settings.workers.drain_timeout
    job = child.slot.current_job()
    if job is None or not child.worn:
        return deadline
    # Nobody waits for a worn worker, so its job keeps all of its time, and each of several.
    return max(deadline, job.hard_deadline + SETTLE_S, float(child.slot.last_deadline) + SETTLE_S)
