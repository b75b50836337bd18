"""Which of several jobs is at work at each moment, as the slot tells it."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rqsup.envelope import Envelope
from rqsup.errors import JobShutdown
from rqsup.store.scripts import Claimed
from rqsup.task import Task
from rqsup.workers.flight import Flight, Tower, board
from rqsup.workers.output import Voice
from rqsup.workers.slot import Slot


def make_flight(name: str, hard_deadline: float = 1e9) -> Flight:
    task = Task(function=asyncio.sleep, name="t")
    return Flight(Claimed(name, 1, 0, 0, b""), Envelope(id=name, task="t"), task, 1.0, 2.0, hard_deadline)


def begin(tower: Tower, flight: Flight, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(tower.make_task)
    own = contextvars.copy_context()
    own.run(board, flight)
    flight.pilot = loop.create_task(coroutine, context=own)
    tower.take_off(flight)
    return flight.pilot


@pytest.fixture
def tower(slot: Slot) -> Tower:
    return Tower(slot, Voice())


def shown(slot: Slot) -> str | None:
    job = slot.current_job()
    return job.id if job else None


def test_the_slot_shows_whose_step_executes_also_in_tasks_that_the_job_started(tower: Tower, slot: Slot) -> None:
    seen: list[tuple[str | None, int, int]] = []

    async def step() -> None:
        seen.append((shown(slot), slot.at_work, slot.jobs))

    async def job() -> None:
        await step()
        await asyncio.create_task(step())

    async def main() -> None:
        first, second = make_flight("a"), make_flight("b")
        await asyncio.gather(begin(tower, first, job()), begin(tower, second, job()))
        seen.append((shown(slot), slot.at_work, slot.jobs))
        tower.land(first)
        tower.land(second)

    asyncio.run(main())

    assert sorted(seen[:4]) == [("a", 1, 2)] * 2 + [("b", 1, 2)] * 2
    assert seen[4][1:] == (0, 2)
    assert (shown(slot), slot.jobs, slot.last_deadline) == (None, 0, 0.0)


def test_one_that_ends_leaves_the_slot_to_another(tower: Tower, slot: Slot) -> None:
    first, second = make_flight("a"), make_flight("b")
    tower.take_off(first)
    tower.take_off(second)

    tower.land(first)

    assert shown(slot) == "b"


def test_one_past_its_hard_deadline_stays_in_the_slot_until_it_ends(tower: Tower, slot: Slot) -> None:
    now = time.monotonic()
    late, other = make_flight("late", now - 1), make_flight("other")
    tower.take_off(other)
    tower.take_off(late)

    tower.doom(now)
    tower.enter(other)
    tower.leave()

    assert (shown(slot), slot.at_work) == ("late", 1)
    tower.land(late)
    assert (shown(slot), slot.at_work) == ("other", 0)


def test_the_worker_may_drain_until_the_last_of_them_is_overdue(tower: Tower, slot: Slot) -> None:
    tower.take_off(make_flight("a", 50.0))
    tower.take_off(make_flight("b", 40.0))

    assert slot.last_deadline == 50.0


def test_an_abandoned_job_gets_a_jobshutdown_once_where_it_waits(tower: Tower) -> None:
    caught: list[str] = []

    async def job() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(60)
            except (JobShutdown, asyncio.CancelledError) as fault:
                caught.append(type(fault).__name__)

    async def main() -> None:
        flight = make_flight("a")
        pilot = begin(tower, flight, job())
        await asyncio.sleep(0)
        flight.abandon()
        await asyncio.sleep(0)
        pilot.cancel()
        await pilot

    asyncio.run(main())

    assert caught == ["JobShutdown", "CancelledError"]


def go_on() -> None:
    """A child that returns into the worker's code."""


@pytest.mark.parametrize("end", [go_on, sys.exit])
def test_a_process_that_a_job_forked_never_returns_into_the_event_loop(tower: Tower, end: Callable[[], None]) -> None:
    children: list[int] = []
    ours, theirs = os.pipe()

    async def job() -> None:
        child = os.fork()
        if child == 0:
            try:
                end()
                await asyncio.sleep(0)
                # Here the loop has turned in the child, with the connections and the jobs of its parent.
                os.write(theirs, b"!")
            finally:
                await asyncio.sleep(0)
        children.append(child)

    async def main() -> None:
        await begin(tower, make_flight("a"), job())

    asyncio.run(main())

    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 1
    os.close(theirs)
    assert os.read(ours, 1) == b""
    os.close(ours)
