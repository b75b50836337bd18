"""A worker claims its next job while the last one it holds still runs, unless jobs are long: on a real Redis."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rqsup import Client, Job
from rqsup.job import JobState
from rqsup.request import Request
from rqsup.store.server import LocalServer
from rqsup.task import _registry, task
from rqsup.workers.prefetch import HELD_S, MOST, Prefetch
from rqsup.workers.run import Runner
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
        task(name="wait")(self.wait)
        self.client = client
        # Longer than any wait here: what stands still, stands still because it waits for an answer.
        self.thread = LoopThread(client, socket_timeout=60)
        self.loop = self.thread._loop
        self.alarm = self.loop._alarm
        self.loop._prefetch.learn(typical_s)
        # The first job of a fresh worker is claimed alone.
        self.loop._fresh = False

    def wait(self) -> None:
        self.begun.set()
        self.gate.wait(20)
        self.ran.append("wait")

    def start(self) -> None:
        self.thread.start()
        assert self.begun.wait(20)

    def run(self) -> tuple[Job, Job]:
        """Begin a job that waits for the gate; another one waits behind it."""
        jobs = self.client.enqueue("wait"), self.client.enqueue("note", "next")
        self.start()
        return jobs

    def run_claimed(self) -> tuple[Job, Job]:
        """The same, and the other one is claimed ahead."""
        job, following = self.run()
        wait_until(lambda: following.refresh().state is JobState.ACTIVE, what="a claim in the midst of a job")
        return job, following

    def held(self) -> int:
        return int(self.client.store.client.llen(self.client.keys.processing("w")))


Make = Callable[..., Worker]


@pytest.fixture
def make(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a worker to whom all jobs seem to take so long; ends it."""
    before, made = dict(_registry), list[Worker]()

    def begin(typical_s: float = SHORT_S, on: Client = client) -> Worker:
        made.append(Worker(on, typical_s))
        monkeypatch.setattr(Prefetch, "learn", lambda *_: None)
        return made[-1]

    yield begin
    for one in made:
        one.gate.set()
        one.thread.slot.order = Order.LEAVE
        one.thread.vanish()
    _registry.clear()
    _registry.update(before)


@pytest.fixture
def freezing(private_redis: LocalServer, namespace: str) -> Iterator[Client]:
    """A client of a server that a job of task `freeze` stops, once the job before it is settled; it goes on in the end."""
    with Client(private_redis.url, namespace=namespace) as client:

        def freeze(before: str) -> None:
            wait_until(lambda: client.get(before).state is JobState.SUCCEEDED)
            # Answered in a later turn of the server's loop than the settle: that answer is on its way.
            client.get(before)
            os.kill(private_redis.pid, signal.SIGSTOP)

        task(name="freeze")(freeze)
        yield client
        os.kill(private_redis.pid, signal.SIGCONT)


def freeze_and_wait(make: Make, client: Client) -> tuple[Worker, Job]:
    """A worker in the midst of a job, with one answer that came and one with the next jobs that cannot come."""
    busy = make(HELD_S / 3.2, client)
    first = client.enqueue("note", "first")
    client.enqueue("freeze", first.id)
    client.enqueue("wait")
    following = client.enqueue("note", "next")
    busy.start()
    assert busy.loop._settling.awaited == 2
    return busy, following


def test_the_next_job_is_there_when_one_ends(make: Make) -> None:
    busy = make()

    job, following = busy.run_claimed()

    assert busy.held() == 2
    busy.gate.set()
    following.result(10)
    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait", "next"]
    assert_clean_state(busy.client)


@pytest.mark.parametrize(("typical_s", "at_once"), [(2 * HELD_S, 1), (0.0001, MOST)])
def test_behind_long_jobs_and_tiny_ones_nothing_more_is_claimed(make: Make, typical_s: float, at_once: int) -> None:
    busy = make(typical_s)
    busy.client.enqueue_many(Request("note", (str(number),)) for number in range(at_once - 1))

    _, following = busy.run()

    assert following.refresh().state is JobState.READY
    assert busy.held() <= at_once
    busy.gate.set()
    following.result(10)


@pytest.mark.parametrize(
    "options", [{"isolation": "fork"}, {"isolation": "sandbox"}, {"limits": {"nofile": 64}}], ids=str
)
def test_behind_a_job_in_a_process_of_its_own_or_under_limits_nothing_is_claimed(
    make: Make, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    busy = make()
    task(name="wait", **options)(busy.wait)
    # A process with threads, as this one, would not fork.
    monkeypatch.setattr(Runner, "_apart", lambda *_: busy.wait())

    _, following = busy.run()

    assert following.refresh().state is JobState.READY
    busy.gate.set()
    following.result(10)


def test_behind_a_job_that_turns_out_long_the_next_goes_back(make: Make) -> None:
    busy = make()
    job, following = busy.run_claimed()

    # What the alarm does in the midst of the job; its thread does nothing but wait.
    busy.alarm.run_errand()

    wait_until(lambda: following.refresh().state is JobState.READY, what="the next job to be free for others")
    assert busy.held() == 1
    busy.gate.set()
    following.result(10)
    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait", "next"]
    assert busy.thread.slot.stale == 0
    assert_clean_state(busy.client)


def test_in_the_midst_of_a_job_no_answer_is_waited_for(
    make: Make, freezing: Client, private_redis: LocalServer
) -> None:
    busy, following = freeze_and_wait(make, freezing)

    busy.alarm.run_errand()

    assert busy.loop._settling.awaited == 1
    os.kill(private_redis.pid, signal.SIGCONT)
    wait_until(lambda: following.refresh().state is JobState.ACTIVE)
    busy.alarm.run_errand()
    wait_until(lambda: following.refresh().state is JobState.READY, what="a second try")


def test_an_ended_job_is_told_of_before_the_next_ones_are_waited_for(make: Make, freezing: Client) -> None:
    busy, _ = freeze_and_wait(make, freezing)

    busy.gate.set()

    # The server gets it, whatever becomes of this worker.
    wait_until(lambda: busy.ran[-1] == "wait" and not busy.loop._settling.unsent, what="the settle to be sent")
    assert busy.loop._settling.ahead


def test_a_lost_answer_loses_and_doubles_nothing(make: Make) -> None:
    busy = make()
    job, following = busy.run_claimed()
    busy.thread.cut_connection()

    busy.gate.set()

    following.result(10)
    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait", "next"]
    assert_clean_state(busy.client)


def test_a_quiet_worker_still_runs_what_it_claimed_ahead(make: Make) -> None:
    busy = make()
    _, following = busy.run_claimed()

    busy.thread.order(Order.QUIET)
    busy.gate.set()

    following.result(10)
    busy.thread.until_state(WorkerState.QUIET)
    assert_clean_state(busy.client)


def test_a_leaving_worker_begins_none_of_what_it_claimed_ahead(make: Make) -> None:
    busy = make()
    job, _ = busy.run_claimed()

    busy.thread.slot.order = Order.LEAVE
    busy.gate.set()
    busy.thread.join()

    assert job.refresh().state is JobState.SUCCEEDED
    assert busy.ran == ["wait"]
    # For the master's `recover`.
    assert busy.held() == 1
