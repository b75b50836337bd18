"""A worker claims its next job while the last one it holds still runs, unless jobs are long: on a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from rqsup import Client, Job
from rqsup.job import JobState
from rqsup.request import Request
from rqsup.store.wire import Wire
from rqsup.task import _registry, task
from rqsup.workers.prefetch import HELD_S, MOST, Prefetch
from rqsup.workers.slot import Order, WorkerState
from tests.system.conftest import assert_clean_state
from tests.waiting import wait_until
from tests.workers.looping import LoopThread

#: Of such jobs a worker asks for one at a time, and for the next one while it runs.
SHORT_S = 0.6 * HELD_S


class Worker:
    """A worker that is in the midst of a job, and has learned how long such take."""

    def __init__(self, client: Client, typical_s: float) -> None:
        self.ran: list[str] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        task(name="note")(self.ran.append)
        task(name="wait")(self._wait)
        self.client = client
        self.loop = LoopThread(client)
        self.loop._loop._prefetch.learn(typical_s)
        # The first job of a fresh worker is claimed alone.
        self.loop._loop._fresh = False

    def _wait(self) -> None:
        self.begun.set()
        self.gate.wait(20)
        self.ran.append("wait")

    def run(self) -> tuple[Job, Job]:
        """Begin a job that waits for the gate; another one waits behind it."""
        jobs = self.client.enqueue("wait"), self.client.enqueue("note", "next")
        self.loop.start()
        assert self.begun.wait(20)
        return jobs

    def held(self) -> int:
        return int(self.client.store.client.llen(self.client.keys.processing("w")))


@pytest.fixture
def worker(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Worker]]:
    """Makes a worker to whom all jobs seem to take so long; ends it."""
    before, made = dict(_registry), list[Worker]()

    def make(typical_s: float) -> Worker:
        made.append(Worker(client, typical_s))
        monkeypatch.setattr(Prefetch, "learn", lambda *_: None)
        return made[-1]

    yield make
    for one in made:
        one.gate.set()
        one.loop.slot.order = Order.LEAVE
        one.loop.vanish()
    _registry.clear()
    _registry.update(before)


def test_the_next_job_is_there_when_one_ends(worker: Callable[[float], Worker]) -> None:
    busy = worker(SHORT_S)

    job, following = busy.run()

    wait_until(lambda: following.refresh().state is JobState.ACTIVE, what="a claim in the midst of a job")
    assert busy.held() == 2
    busy.gate.set()
    following.result(10)
    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait", "next"]
    assert_clean_state(busy.client)


@pytest.mark.parametrize(("typical_s", "at_once"), [(2 * HELD_S, 1), (0.0001, MOST)])
def test_behind_long_jobs_and_tiny_ones_nothing_more_is_claimed(
    worker: Callable[[float], Worker], typical_s: float, at_once: int
) -> None:
    busy = worker(typical_s)
    busy.client.enqueue_many(Request("note", (str(number),)) for number in range(at_once - 1))

    _, following = busy.run()

    assert following.refresh().state is JobState.READY
    assert busy.held() <= at_once
    busy.gate.set()
    following.result(10)


def test_behind_a_job_that_turns_out_long_the_next_goes_back(worker: Callable[[float], Worker]) -> None:
    busy = worker(SHORT_S)
    job, following = busy.run()
    wait_until(lambda: following.refresh().state is JobState.ACTIVE)

    # What the alarm does in the midst of the job; its thread does nothing but wait.
    busy.loop._loop._alarm.run_errand(may_wait=False)

    wait_until(lambda: following.refresh().state is JobState.READY, what="the next job to be free for others")
    assert busy.held() == 1
    busy.gate.set()
    following.result(10)
    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait", "next"]
    assert busy.loop.slot.stale == 0
    assert_clean_state(busy.client)


def test_in_the_midst_of_a_job_no_answer_is_waited_for(
    worker: Callable[[float], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = worker(SHORT_S)
    _, following = busy.run()
    wait_until(lambda: following.refresh().state is JobState.ACTIVE)
    alarm = busy.loop._loop._alarm

    with monkeypatch.context() as slow_server:
        slow_server.setattr(Wire, "is_answered", False)
        alarm.run_errand(may_wait=False)
        assert following.refresh().state is JobState.ACTIVE
    alarm.run_errand(may_wait=False)

    wait_until(lambda: following.refresh().state is JobState.READY, what="a second try")


def test_a_lost_answer_loses_and_doubles_nothing(worker: Callable[[float], Worker]) -> None:
    busy = worker(SHORT_S)
    job, following = busy.run()
    wait_until(lambda: following.refresh().state is JobState.ACTIVE)
    busy.loop.cut_connection()

    busy.gate.set()

    following.result(10)
    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait", "next"]
    assert_clean_state(busy.client)


def test_a_quiet_worker_still_runs_what_it_claimed_ahead(worker: Callable[[float], Worker]) -> None:
    busy = worker(SHORT_S)
    _, following = busy.run()
    wait_until(lambda: following.refresh().state is JobState.ACTIVE)

    busy.loop.order(Order.QUIET)
    busy.gate.set()

    following.result(10)
    busy.loop.until_state(WorkerState.QUIET)
    assert_clean_state(busy.client)


def test_a_leaving_worker_begins_none_of_what_it_claimed_ahead(worker: Callable[[float], Worker]) -> None:
    busy = worker(SHORT_S)
    job, following = busy.run()
    wait_until(lambda: following.refresh().state is JobState.ACTIVE)

    busy.loop.slot.order = Order.LEAVE
    busy.gate.set()
    busy.loop.join()

    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait"]
    # For the master's `recover`.
    assert busy.held() == 1
