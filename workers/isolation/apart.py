"""Runs one job apart from its worker: in a process of its own, with walls around it or without."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Literal, cast

import msgspec

from rqsup.settings import Settings
from rqsup.store.scripts import Settlement
from rqsup.task import Isolation
from rqsup.workers.alarm import Alarm
from rqsup.workers.isolation.fork import Call, Ending, run_forked
from rqsup.workers.isolation.sandbox import Sandbox, with_folder
from rqsup.workers.slot import STRIDE, Slot, slot_at
from rqsup.workers.title import describe_job

Outcome = Literal["succeed", "retry", "bury"]

#: Most bytes of an error's record beyond `limits.result_bytes`: message and traceback, with all characters escaped.
ERROR_BYTES = 1 << 17

#: Longest delay of a retry, milliseconds: about 3 years.
LONGEST_MS = 10**11


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
    work: Callable[[], Settlement]


class Apart:
    """One worker's way to run jobs apart."""

    def __init__(self, settings: Settings, slot: Slot, alarm: Alarm, belongings: Belongings) -> None:
        self._settings = settings
        self._slot = slot
        self._alarm = alarm
        self._belongings = belongings
        #: What a job's process sees of the slot: its stores reach nobody but itself.
        self.mirror = slot_at(mmap(-1, STRIDE), 0)
        self._sandbox: Sandbox | None = None

    def run(self, attempt: Attempt) -> Ending:
        """Run it to its end.

        Raises:
            OSError: it could not be begun.
            SandboxIncomplete: a demanded wall is missing.
        """
        self._reflect()
        if attempt.isolation == "fork":
            return self._run(attempt, self._leave_worker)
        if self._sandbox is None:
            self._sandbox = Sandbox(self._settings.sandbox)
        sandbox = self._sandbox
        sandbox.check()
        ending: Ending = with_folder(
            lambda folder: self._run(attempt, lambda pipe: sandbox.enter(folder, pipe, self._belongings.scoreboard))
        )
        return ending

    def _run(self, attempt: Attempt, prepare: Callable[[int], None]) -> Ending:
        def work(pipe: int) -> bytes:
            prepare(pipe)
            self._alarm.become(f"job of worker {self._alarm.number}")
            ended = attempt.work()
            return msgspec.json.encode(Report(cast(Outcome, ended.outcome), msgspec.Raw(ended.payload), ended.number))

        allowed, grace = attempt.soft_deadline - attempt.started, self._settings.workers.kill_grace

        def tick() -> None:
            self._reflect()
            age_s = time.monotonic() - attempt.started
            if age_s >= 1:
                self._alarm.show(describe_job(attempt.task, attempt.job_id, age_s))

        return run_forked(Call(
            work=work, limit=self._settings.limits.result_bytes + ERROR_BYTES, deadline=attempt.hard_deadline,
            overdue=f"hard timeout: ran {allowed + grace:.1f} s, allowed are {allowed:g} s and {grace:g} s of grace",
            started=self._note, tick=tick,
        ))  # fmt: skip

    def _note(self, pid: int) -> None:
        self._slot.job_group = pid

    def _reflect(self) -> None:
        self.mirror.order = self._slot.order
        self.mirror.lease_until = self._slot.lease_until

    def _leave_worker(self, _pipe: int) -> None:
        for connection in self._belongings.connections:
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
