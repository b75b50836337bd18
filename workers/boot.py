"""Makes a worker out of a fresh fork. The order of the steps is explained in docs/fork-safety.md."""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import socket
import time
from mmap import mmap
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store.wire import Wire
from rqsup.workers import blackbox
from rqsup.workers.alarm import Alarm
from rqsup.workers.assignment import EXIT_BROKEN, EXIT_UNFIT, Assignment
from rqsup.workers.channel import Channel
from rqsup.workers.isolation.apart import Belongings
from rqsup.workers.isolation.fork import flush_streams
from rqsup.workers.kernel import die_with_parent
from rqsup.workers.loop import SCRIPTS, Loop, MasterGone
from rqsup.workers.output import Voice, capture
from rqsup.workers.run import Place, Runner
from rqsup.workers.slot import Order, WorkerState, slot_at

#: Signals that an operator or an init program may send to a whole process group. A worker obeys only
#: its master's channel, else a `kill -TERM 0` would end jobs that the master still has time for.
IGNORED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGTSTP, signal.SIGWINCH,
)  # fmt: skip
#: Those of them by which a job may want to end a program that it started.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Variables that belong to the master's talk with systemd.
MASTERS_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
#: Raised for a worker so that the kernel, short of memory, kills a job rather than the master.
OOM_SCORE = 300
#: Seconds to wait for the kernel to make the master this process's parent.
ADOPTION_S = 5.0


class Descriptors(NamedTuple):
    """What a worker has from its master."""

    channel: int
    #: The black box, for its stacks; negative = none.
    box: int = -1
    #: The pipe for what its jobs print; negative = they are not captured.
    output: int = -1


def run_worker(assignment: Assignment, settings: Settings, memory: mmap, descriptors: Descriptors) -> NoReturn:
    """Be a worker until the end of this process."""
    status = EXIT_BROKEN
    try:
        _leave_family(assignment.master_pid)
        voice = Voice() if descriptors.output < 0 else capture(descriptors.output, assignment.mark)
        _reset_process(descriptors.box)
        status = _work(assignment, settings, memory, descriptors, voice)
    except MasterGone:
        status = 0
    except BaseException:  # noqa: BLE001 - the last frame of this process: tell, and never unwind into the zygote's stack
        get_logger("worker").exception("worker failed", worker=assignment.worker)
    finally:
        flush_streams()
        os._exit(status)


def _leave_family(master_pid: int) -> None:
    """Become the master's child, in a process group of its own."""
    os.setsid()
    deadline = time.monotonic() + ADOPTION_S
    while os.getppid() != master_pid and time.monotonic() < deadline:
        os.sched_yield()
    die_with_parent(master_pid)


def ignore_signals() -> None:
    """Let no signal from outside end this process."""
    for number in (*IGNORED, blackbox.DUMP):
        signal.signal(number, signal.SIG_IGN)
    # SIG_IGN outlives an exec: a program that a job starts could then not be ended by SIGTERM. Only these
    # few, because many at once would overflow the small stack on which faulthandler has handlers run.
    for number in ENDING:
        signal.signal(number, _do_nothing)
        signal.siginterrupt(number, False)


def _do_nothing(_signal: int, _frame: FrameType | None) -> None:
    """Take a signal and leave it at that."""


def _reset_process(box_fd: int) -> None:
    signal.set_wakeup_fd(-1)
    ignore_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for name in MASTERS_VARIABLES:
        os.environ.pop(name, None)
    random.seed()
    gc.enable()
    blackbox.install(box_fd)
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:  # noqa: PTH123 - no path arithmetic, one write
            file.write(str(OOM_SCORE))
    except OSError:
        # Forbidden in some containers; the kernel then chooses by size alone.
        get_logger("worker").debug("oom_score_adj is not writable")


def _work(assignment: Assignment, settings: Settings, memory: mmap, descriptors: Descriptors, voice: Voice) -> int:
    slot = slot_at(memory, assignment.slot)
    slot.state = WorkerState.STARTING
    log: Any = get_logger("worker", pool=settings.pool, worker=assignment.number, generation=assignment.generation)
    name = f"worker {assignment.number} [{settings.pool}] gen {assignment.generation}"
    alarm = Alarm(name, lambda: bool(slot.order == Order.ABANDON))
    alarm.install()
    alarm.show("starting")
    channel = Channel(descriptors.channel)
    host = socket.gethostname()
    place = Place(assignment.worker, assignment.number, host, os.getpid(), assignment.generation)
    wire = Wire(settings.redis, name=f"rqsup-worker-{assignment.worker}", scripts=SCRIPTS)
    ear = Wire(settings.redis, name=f"rqsup-ear-{assignment.worker}", scripts=())
    belongings = Belongings((wire, ear, channel), memory, descriptors.box)
    runner = Runner(
        settings=settings, place=place, slot=slot, alarm=alarm, log=log, voice=voice, belongings=belongings,
    )  # fmt: skip
    common: dict[str, Any] = dict(  # noqa: C408 - as the two calls that it goes into
        settings=settings, worker=assignment.worker, slot=slot, channel=channel, wire=wire, runner=runner,
        alarm=alarm, log=log,
    )  # fmt: skip
    loop = _concurrent(ear=ear, voice=voice, **common) if settings.workers.concurrency > 1 else Loop(**common)
    if not _passes(assignment.check, channel):
        return EXIT_UNFIT
    slot.state = WorkerState.IDLE
    slot.turned = time.monotonic()
    channel.say_ready()
    loop.run()
    wire.close()
    return 0


def _concurrent(**parts: Any) -> Loop:
    # asyncio takes 3 MB, which a plain worker need not hold.
    from rqsup.workers.concurrent import ConcurrentLoop

    return ConcurrentLoop(**parts)


def _passes(check: str, channel: Channel) -> bool:
    """Call the application's check; False when it raised, which the master is told."""
    if not check:
        return True
    module, _, name = check.partition(":")
    try:
        getattr(importlib.import_module(module), name)()
    except BaseException as fault:  # noqa: BLE001 - application code: whatever it raises is its verdict
        channel.say_unfit(f"{type(fault).__name__}: {fault}")
        return False
    return True
