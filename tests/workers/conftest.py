"""Fixtures of the worker's tests: a slot in memory of its own, an alarm that leaves no trace, a runner."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from mmap import mmap

import pytest

from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.workers.alarm import Alarm
from rqsup.workers.run import Place, Runner
from rqsup.workers.slot import STRIDE, Slot, slot_at


@pytest.fixture
def slot() -> Slot:
    """A clean slot."""
    return slot_at(mmap(-1, STRIDE), 0)


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    """An installed alarm; the test runner's own timer comes back afterwards."""
    handler, (left_s, _) = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    alarm = Alarm("worker 3 [mail] gen 2", lambda: False)
    alarm.install()
    yield alarm
    alarm.disarm()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, left_s)


@pytest.fixture
def runner(slot: Slot, alarm: Alarm) -> Runner:
    """A runner with default settings."""
    return make_runner(slot, alarm)


def make_runner(slot: Slot, alarm: Alarm, settings: Settings | None = None) -> Runner:
    """A runner in this process."""
    place = Place("host.1.7", 7, "host", os.getpid(), 2)
    return Runner(settings=settings or Settings(), place=place, slot=slot, alarm=alarm, log=get_logger("test"))
