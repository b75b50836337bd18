"""The slot: shared by two processes without a lock, so it must never show half of a change."""

from __future__ import annotations

import ctypes
import os
import time
from mmap import mmap

import pytest

from rqsup.workers.slot import STRIDE, CurrentJob, Order, Slot, WorkerState, slot_at


def begin(slot: Slot, job_id: str = "job-1", started: float = 5.0) -> None:
    slot.begin(job_id.encode(), b"mail.send", started=started, soft_deadline=started + 1, hard_deadline=started + 2)


def test_a_job_is_seen_between_its_begin_and_its_end(slot: Slot) -> None:
    assert slot.current_job() is None

    begin(slot)

    assert slot.current_job() == CurrentJob("job-1", "mail.send", 5.0, 6.0, 7.0)
    assert slot.state == WorkerState.BUSY
    slot.end()
    assert slot.current_job() is None


def test_a_worker_that_died_while_it_wrote_shows_no_job(slot: Slot) -> None:
    begin(slot)

    slot.sequence += 1

    assert slot.current_job() is None


def test_text_longer_than_its_field_is_cut(slot: Slot) -> None:
    slot.begin(b"x" * 500, b"t" * 500, started=1.0, soft_deadline=2.0, hard_deadline=3.0)

    job = slot.current_job()

    assert job is not None
    assert set(job.id) == {"x"}
    assert 128 <= len(job.id) <= 136


def test_bytes_that_are_no_text_do_not_break_the_reader(slot: Slot) -> None:
    slot.begin(b"\xff", b"t", started=1.0, soft_deadline=2.0, hard_deadline=3.0)

    job = slot.current_job()

    assert job is not None
    assert job.id == "\N{REPLACEMENT CHARACTER}"


def test_a_job_from_before_the_loss_of_the_lease_has_lost_it_and_a_later_one_has_not(slot: Slot) -> None:
    now = time.monotonic()
    slot.lease_until, slot.lost_at = now + 60, now - 1

    assert slot.lease_left(now - 2) < 0
    assert slot.lease_left(now) > 50


@pytest.mark.parametrize("name", [name for name, *_ in Slot._fields_])
def test_each_number_is_aligned_so_that_a_store_is_whole(name: str) -> None:
    assert getattr(Slot, name).offset % 8 == 0


def test_slots_lie_in_cache_lines_of_their_own() -> None:
    assert STRIDE % 64 == 0
    assert ctypes.sizeof(Slot) <= STRIDE
    memory = mmap(-1, 3 * STRIDE)
    for index in range(3):
        slot_at(memory, index).succeeded = index + 1

    assert [slot_at(memory, index).succeeded for index in range(3)] == [1, 2, 3]


def test_clear_makes_a_slot_as_new(slot: Slot) -> None:
    begin(slot)
    slot.order, slot.succeeded, slot.lease_until = Order.LEAVE, 9, 4.5

    slot.clear()

    assert bytes(slot) == bytes(ctypes.sizeof(Slot))


def test_a_reader_in_another_process_never_sees_a_mixed_job() -> None:
    slot = slot_at(mmap(-1, STRIDE), 0)
    writer = os.fork()
    if writer == 0:
        write_for(slot, 0.5)
        os._exit(0)

    seen = set()
    while os.waitpid(writer, os.WNOHANG) == (0, 0):
        job = slot.current_job()
        if job:
            assert job.task == job.id
            assert job.soft_deadline == job.started + 1
            assert job.id[0] == str(int(job.started))
            seen.add(job.id)

    assert seen


def write_for(slot: Slot, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for digit in range(1, 10):
            name = (str(digit) * 128).encode()
            slot.begin(name, name, started=float(digit), soft_deadline=digit + 1.0, hard_deadline=digit + 2.0)
            if digit % 3 == 0:
                slot.end()
