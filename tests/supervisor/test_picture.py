"""The picture of the workers, for people and programs."""

from __future__ import annotations

import mmap
import os
import time

import pytest

from rqsup.supervisor import picture
from rqsup.supervisor.picture import MemoryMeter, count_busy, count_ready, view_worker
from rqsup.supervisor.plan import Phase
from tests.supervisor.children import enter_job, make_child


def test_a_busy_worker_shows_its_job_and_counters() -> None:
    child = make_child(number=4)
    enter_job(child, started=time.monotonic() - 3)
    child.slot.succeeded, child.slot.retried, child.slot.buried = 1, 2, 3

    view = view_worker(child, MemoryMeter())

    assert (view.number, view.id, view.pid, view.generation) == (4, "host.1.1", os.getpid(), 1)
    assert (view.state, view.task, view.job_id) == ("busy", "mail.send", "job-1")
    assert view.job_age_s == pytest.approx(3, abs=1)
    assert (view.succeeded, view.retried, view.buried) == (1, 2, 3)
    assert view.memory_bytes > 1_000_000


def test_an_idle_worker_shows_no_job() -> None:
    view = view_worker(make_child(), MemoryMeter())

    assert (view.state, view.task, view.job_id, view.job_age_s) == ("idle", None, None, None)
    assert view.age_s >= 0


def test_memory_is_read_once_while_fresh_and_forgotten_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = MemoryMeter()
    first = meter.read(os.getpid())
    # Pages of its own: the allocator may hand out memory that this process has written before.
    with mmap.mmap(-1, 32 << 20) as ballast:
        ballast.write(b"\xff" * len(ballast))

        assert meter.read(os.getpid()) == first
        monkeypatch.setattr(picture, "MEMORY_FRESH_S", 0)
        assert meter.read(os.getpid()) >= first + len(ballast) // 2
    meter.forget([])
    assert meter._known == {}


@pytest.mark.parametrize("pid", [0, 2**22 + 1])
def test_memory_of_no_process_is_unknown(pid: int) -> None:
    assert MemoryMeter().read(pid) == 0


def test_ready_and_busy_are_counted_apart() -> None:
    children = [make_child(phase=phase) for phase in (Phase.STARTING, Phase.READY, Phase.READY, Phase.DRAINING)]
    enter_job(children[1])
    enter_job(children[3])

    assert (count_ready(children), count_busy(children)) == (2, 2)
