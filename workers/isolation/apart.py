"""Runs one job apart from its worker: in a process of its own, with walls around it or without."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Literal, cast

import msgspec

from rqsup import logs
from rqsup.settings import Settings
from rqsup.store.scripts import Settlement
from rqsup.task import Isolation
from rqsup.workers.alarm import Alarm
from rqsup.workers.isolation.fork import Call, Ending, run_forked
from rqsup.workers.isolation.watch import Watch
from rqsup.workers.slot import STRIDE, Order, Slot, slot_at
from rqsup.workers.threads import refuse_threads

Outcome = Literal["succeed", "retry", "bury", "give_up"]

#: Most bytes of an error's record beyond `limits.result_bytes`: message and traceback, with all characters escaped.
ERROR_BYTES = 1 << 17

#: Seconds after which the master kills a worker that did not end an isolated job at its deadline.
APART_S = 2.0
#: Longest delay of a retry, milliseconds: about 3 years.
LONGEST_MS = 10**11


#: The answer of a process whose job was given up, because its worker has to end.
GIVEN_UP = b'{"outcome":"give_up","payload":{},"number":0}'


class Report(msgspec.Struct, frozen=True):
    """What a job's process answers. It may be forged: it can only say how this very job ended."""

    outcome: Outcome
    payload: msgspec.Raw
    number: int


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a worker has open and a job's process must not use; None = nothing."""

    #: Objects with a `fileno`: the connection to Redis and the channel to the master.
    connections: Sequence[Any] = ()
    scoreboard: mmap | None = None
    #: Descriptor of the black box, the one thing that a job's process shares; negative = there is none.
    box: int = -1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a job, as far as its isolation is concerned."""

    isolation: Isolation
    task: str
    job_id: str
    started: float
    soft_deadline: float
    hard_deadline: float
    #: Runs the job in its process.
    work: Callable[[], Settlement | None]


class Apart:
    """One worker's way to run jobs apart."""

    def __init__(self, settings: Settings, slot: Slot, alarm: Alarm, belongings: Belongings) -> None:
        self._settings = settings
        self._slot = slot
        self._alarm = alarm
        self._belongings = belongings
        #: What a job's process sees of the slot: its stores reach nobody but itself.
        self.mirror = slot_at(mmap(-1, STRIDE), 0)
        self._watch: Watch | None = None
        self._jobs = 0

    def refuse_threads(self) -> None:
        """Check that this worker can be forked.

        Raises:
            ForkRefused: it has more than one thread.
        """
        refuse_threads()

    def blames_another(self) -> bool:
        """True when a job that ran in this worker may have left the threads, and not the application."""
        return self._slot.jobs_ended() > self._jobs

    def run(self, attempt: Attempt) -> Ending:
        """Run it to its end.

        Raises:
            OSError: it could not be begun.
            SandboxIncomplete: a demanded wall is missing.
        """
        self._jobs += 1
        self._show(attempt)
        try:
            if attempt.isolation == "fork":
                return self._run(attempt, self._leave_worker)
            # Half a megabyte; the zygote has it where a task asks for the sandbox.
            from rqsup.workers.isolation.sandbox import sandbox_of, with_folder

            sandbox = sandbox_of(self._settings.sandbox)
            sandbox.check()
            belongings = self._belongings
            ending: Ending = with_folder(lambda folder: self._run(
                attempt, lambda pipe: sandbox.enter(folder, (pipe, belongings.box, logs.descriptor()), belongings.scoreboard)
            ))  # fmt: skip
            return ending
        finally:
            self._slot.end()

    def _show(self, attempt: Attempt) -> None:
        # The worker kills the process itself; the master comes after it, for a worker that does not.
        self._slot.begin(
            attempt.job_id.encode(), attempt.task.encode(), started=attempt.started,
            soft_deadline=attempt.soft_deadline, hard_deadline=attempt.hard_deadline + APART_S,
        )  # fmt: skip
        self._alarm.check_handlers()
        self._alarm.show("busy")

    def _run(self, attempt: Attempt, prepare: Callable[[int], None]) -> Ending:
        def work(pipe: int) -> bytes:
            prepare(pipe)
            mirror = self.mirror
            self._alarm.become(f"job of {self._alarm.name}", lambda: bool(mirror.order == Order.ABANDON))
            ended = attempt.work()
            if ended is None:
                return GIVEN_UP
            return msgspec.json.encode(Report(cast(Outcome, ended.outcome), msgspec.Raw(ended.payload), ended.number))

        allowed, grace = attempt.soft_deadline - attempt.started, self._settings.workers.kill_grace
        self._watch = watch = self._watch or Watch(self._slot, self.mirror, self._alarm, self._belongings.box)
        watch.begin(attempt.task, attempt.job_id, attempt.started)
        return run_forked(Call(
            work=work, limit=self._settings.limits.result_bytes + ERROR_BYTES, deadline=attempt.hard_deadline,
            overdue=f"hard timeout: ran {allowed + grace:.1f} s, allowed are {allowed:g} s and {grace:g} s of grace",
            observer=watch,
        ))  # fmt: skip

    def _leave_worker(self, _pipe: int) -> None:
        for connection in self._belongings.connections:
            if connection.fileno() < 0:
                continue
            # Closed by number: an orderly end would be seen at the other side. Nobody uses the objects any more.
            os.close(connection.fileno())


def read_report(answer: bytes) -> Report | None:
    """The report in an answer; None when a job forged one that is none."""
    try:
        report = msgspec.json.decode(answer, type=Report)
        if report.outcome != "succeed":
            msgspec.json.decode(report.payload, type=dict[str, str | int])
        return report if 0 <= report.number <= LONGEST_MS else None
    except (msgspec.DecodeError, RecursionError):
        return None
