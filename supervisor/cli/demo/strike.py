"""The demo's blow: SIGKILL for a worker that is in the middle of a job."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rqsup.supervisor.snapshot import RecoveryView, Snapshot, WorkerView

#: Longest hunt for a worker in a job, and longest wait for its job's return, seconds.
HUNT_S, RETURN_S = 3.0, 10.0
#: A frozen worker that was between two jobs runs on for at most this long, seconds; a tiny job takes 100 µs.
STEP_S = 0.00005
#: Longest wait until it has a CPU again, seconds.
WAKE_S = 0.002
#: Kills that may miss: a job whose result was already written does not come back.
MOST_KILLS = 5
#: Pause between two looks at the master, seconds.
LOOK_PAUSE_S = 0.002

Look = Callable[[], Snapshot]


@dataclass(frozen=True, slots=True)
class Hit:
    """One worker that was killed in a job, and when the job was back."""

    worker: WorkerView
    job_id: str
    #: Milliseconds from the kill until the job was back in its queue.
    back_after_ms: float


@contextlib.contextmanager
def frozen(look: Look) -> Iterator[list[int]]:
    """All workers stand still inside the block (SIGSTOP); their pids."""
    pids = [worker.pid for worker in look().workers if worker.pid]
    try:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        yield pids
    finally:
        for pid in pids:
            _send(pid, signal.SIGCONT)


def strike(look: Look, pids: list[int]) -> Hit | None:
    """Kill one of these frozen workers while it is in a job; None when none was caught in one.

    Jobs take far less time than a status does, so a worker seen in a job has long left it when the
    signal arrives. Frozen first, it stays in it. One that was frozen between two jobs runs on for
    some microseconds, and is looked at again.
    """
    living = list(pids)
    for _ in range(MOST_KILLS):
        victim = _hunt(look, living)
        if victim is None:
            return None
        killed_at = time.time()
        _send(victim.pid, signal.SIGKILL)
        living.remove(victim.pid)
        recovery = _await_recovery(look, victim)
        if recovery and victim.job_id in recovery.jobs:
            # The master counts from the moment it saw the death; the kernel's part belongs to it too.
            since_kill_ms = (recovery.at - killed_at) * 1000
            return Hit(victim, victim.job_id, round(max(recovery.back_after_ms, since_kill_ms), 3))
    return None


def _hunt(look: Look, pids: list[int]) -> WorkerView | None:
    deadline = time.monotonic() + HUNT_S
    with _on_one_cpu(pids):
        for pid in itertools.cycle(pids):
            caught = [worker for worker in look().workers if worker.pid in pids and worker.job_id]
            if caught:
                return caught[0]
            if time.monotonic() > deadline:
                return None
            _step(pid)
    return None


@contextlib.contextmanager
def _on_one_cpu(pids: list[int]) -> Iterator[None]:
    """The workers share a CPU with this thread: they run only while it sleeps, and stop when it wakes."""
    allowed = os.sched_getaffinity(0)
    _pin([0, *pids], {min(allowed)})
    try:
        yield
    finally:
        _pin([0, *pids], allowed)


def _pin(pids: list[int], cpus: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.sched_setaffinity(pid, cpus)


def _step(pid: int) -> None:
    """Let a frozen process run for a moment."""
    _send(pid, signal.SIGCONT)
    time.sleep(random.uniform(0, STEP_S))  # noqa: S311 - no secret
    _send(pid, signal.SIGSTOP)


def _await_recovery(look: Look, victim: WorkerView) -> RecoveryView | None:
    deadline = time.monotonic() + RETURN_S
    while time.monotonic() < deadline:
        for recovery in look().recoveries:
            if recovery.worker == victim.id:
                return recovery
        time.sleep(LOOK_PAUSE_S)
    return None


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself; the master starts another
        os.kill(pid, number)
