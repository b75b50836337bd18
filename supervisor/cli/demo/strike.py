"""The demo's blow: SIGKILL for a worker that is in the middle of a job."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rqsup.supervisor.snapshot import RecoveryView, Snapshot, WorkerView

#: Longest hunt for a worker in a job of any length, for one in a long job, and longest wait for its job's return, seconds.
HUNT_S, AMBUSH_S, RETURN_S = 3.0, 30.0, 10.0
#: A frozen worker that was between two jobs runs on for at most this long, seconds; a tiny job takes 100 µs.
STEP_S = 0.00005
#: Longest wait until it has a CPU again, seconds.
WAKE_S = 0.02
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


def strike(look: Look, pids: list[int], over: Callable[[], bool]) -> Hit | None:
    """Kill one of these frozen workers while it is in a job; None when none was caught in one, and it is `over`.

    Jobs take far less time than a status does, so a worker seen in a job has long left it when the
    signal arrives. Frozen first, it stays in it. One that was frozen between two jobs runs on for
    some microseconds, and is looked at again.
    """
    living = list(pids)
    for _ in range(MOST_KILLS):
        victim = _hunt(look, living, over)
        if victim is None:
            return None
        living.remove(victim.pid)
        hit = _blow(look, victim)
        if hit:
            return hit
    return None


def ambush(look: Look, over: Callable[[], bool]) -> Hit | None:
    """Kill a worker in a job that takes far longer than a look: no luck is needed, on however busy a machine.

    One that is seen in a job is frozen, and looked at once more: if it has left its job meanwhile, it runs on.
    """
    deadline = time.monotonic() + AMBUSH_S
    kills = 0
    while kills < MOST_KILLS and time.monotonic() < deadline and not over():
        for pid in [worker.pid for worker in look().workers if worker.pid and worker.job_id]:
            _send(pid, signal.SIGSTOP)
            victim = next((worker for worker in look().workers if worker.pid == pid and worker.job_id), None)
            if victim is None:
                _send(pid, signal.SIGCONT)
                continue
            hit, kills = _blow(look, victim), kills + 1
            if hit:
                return hit
            break  # what was seen with it is old by now
        time.sleep(LOOK_PAUSE_S)
    return None


def _blow(look: Look, victim: WorkerView) -> Hit | None:
    """Kill a frozen worker; None when its job did not come back, because its result was already written."""
    killed_at = time.time()
    _send(victim.pid, signal.SIGKILL)
    recovery = _await_recovery(look, victim)
    if recovery is None or victim.job_id not in recovery.jobs:
        return None
    # The master counts from the moment it saw the death; the kernel's part belongs to it too.
    since_kill_ms = (recovery.at - killed_at) * 1000
    return Hit(victim, victim.job_id, round(max(recovery.back_after_ms, since_kill_ms), 3))


def _hunt(look: Look, pids: list[int], over: Callable[[], bool]) -> WorkerView | None:
    deadline = time.monotonic() + HUNT_S
    with _in_slow_motion(pids):
        for pid in itertools.cycle(pids):
            caught = [worker for worker in look().workers if worker.pid in pids and worker.job_id]
            if caught:
                return caught[0]
            if time.monotonic() > deadline or over():
                return None
            _step(pid)
    return None


@contextlib.contextmanager
def _in_slow_motion(pids: list[int]) -> Iterator[None]:
    """Inside the block these processes, and other threads of this one, do not push this thread aside."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)  # a thread may keep the interpreter for 5 ms otherwise: a whole queue is done by then
    try:
        _schedule(pids, os.SCHED_BATCH)  # a batch process that wakes up waits until others have had their turn
        yield
    finally:
        _schedule(pids, os.SCHED_OTHER)
        sys.setswitchinterval(usual)


def _schedule(pids: list[int], policy: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.sched_setscheduler(pid, policy, os.sched_param(0))


def _step(pid: int) -> None:
    """Let a frozen process run for a moment, from when the kernel gives it a CPU."""
    try:
        meter = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # it ended by itself
    try:
        slices = _slices(meter)
        _send(pid, signal.SIGCONT)
        _spin(WAKE_S, lambda: _slices(meter) != slices)
        _spin(random.uniform(0, STEP_S), lambda: False)  # noqa: S311 - no secret
    finally:
        _send(pid, signal.SIGSTOP)
        os.close(meter)


def _spin(most_s: float, done: Callable[[], bool]) -> None:
    # No sleep: to wake up from it takes longer than many a job.
    until = time.perf_counter() + most_s
    while not done() and time.perf_counter() < until:
        pass


def _slices(meter: int) -> bytes:
    """How often the process got a CPU: the third number of schedstat."""
    try:
        return os.pread(meter, 100, 0).rpartition(b" ")[2]
    except ProcessLookupError:
        return b""


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
