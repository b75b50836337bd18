"""The worker's loop on a real Redis."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rqsup import Client, Job, current_job
from rqsup.errors import JobShutdown, JobTimeout, RedisUnavailable
from rqsup.job import JobState
from rqsup.request import Request
from rqsup.store import scripts
from rqsup.store.server import LocalServer
from rqsup.task import _registry, task
from rqsup.workers.loop import MasterGone
from rqsup.workers.slot import Order, Spent, WorkerState
from tests.waiting import wait_until
from tests.workers.looping import LoopThread

Start = Callable[..., LoopThread]


@pytest.fixture(autouse=True)
def gate() -> Iterator[threading.Event]:
    """Opens the way for jobs of task `slow`; tasks are declared for one test."""
    before, gate = dict(_registry), threading.Event()
    task(name="ran")(lambda value=None: value)
    task(name="slow")(lambda: gate.wait(10))
    yield gate
    gate.set()
    _registry.clear()
    _registry.update(before)


@pytest.fixture
def start(client: Client) -> Iterator[Start]:
    """Starts loops on the shared server, and ends what is left of them."""
    started: list[LoopThread] = []

    def begin(on: Client = client, *, register: bool = True, **workers: Any) -> LoopThread:
        started.append(LoopThread(on, **workers).start(register=register))
        return started[-1]

    yield begin
    for loop in started:
        loop.slot.order = Order.LEAVE
        loop.vanish()


@pytest.fixture
def own(private_redis: LocalServer, namespace: str) -> Iterator[Client]:
    """A client on a server that the test may kill."""
    with Client(private_redis.url, namespace=namespace) as client:
        yield client


def test_jobs_run_in_the_order_of_their_levels(client: Client, start: Start) -> None:
    order: list[str] = []
    task(name="note")(order.append)
    levels = ["low", "high", "normal", "critical", "very_low", "normal"]
    for level in levels:
        client.send(Request("note", (level,), priority=level))

    start()

    wait_until(lambda: len(order) == len(levels), what="all jobs")
    assert order == ["critical", "high", "normal", "normal", "low", "very_low"]


def test_a_job_is_handed_over_while_the_worker_blocks(client: Client, start: Start) -> None:
    loop = start(block_timeout=20)
    loop.until_waiting()

    assert client.enqueue("ran", 5).result(5) == 5

    # The result is there before the worker has read the answer and waits again.
    wait_until(lambda: loop.slot.state == WorkerState.IDLE, what="an idle worker")
    loop.until_waiting()
    loop.leave()


def test_a_block_that_ends_without_a_job_begins_anew(client: Client, start: Start) -> None:
    start(block_timeout=0.05).until_waiting()

    assert [client.enqueue("ran", number).result(5) for number in range(20)] == list(range(20))


def test_many_tiny_jobs_are_held_and_settled(client: Client, start: Start) -> None:
    jobs = client.enqueue_many(Request("ran", (number,)) for number in range(500))

    loop = start()

    assert [job.result(10) for job in jobs] == list(range(500))
    assert client.store.client.llen(client.keys.processing("w")) == 0
    loop.leave()
    assert loop.slot.state == WorkerState.LEAVING
    assert loop.slot.succeeded == 500


@pytest.mark.parametrize("blocked", [True, False])
def test_a_quiet_worker_takes_nothing_until_it_is_told_to_go_on(client: Client, start: Start, blocked: bool) -> None:
    loop = start(block_timeout=20)
    if blocked:
        loop.until_waiting()

    loop.order(Order.QUIET)
    loop.until_state(WorkerState.QUIET)
    job = client.enqueue("ran", 1)
    assert job.refresh().state is JobState.READY
    loop.order(Order.QUIET)
    assert not client.store.client.sismember(client.keys.waiting, "w")
    loop.order(Order.WORK)

    assert job.result(5) == 1
    loop.leave()


def test_a_worker_that_starts_in_a_quiet_pool_takes_nothing(client: Client) -> None:
    job = client.enqueue("ran", 1)
    loop = LoopThread(client)
    loop.slot.order = Order.QUIET
    loop.start()
    try:
        loop.until_state(WorkerState.QUIET)
        assert client.record(job.id).state is JobState.READY

        loop.order(Order.WORK)
        assert job.result(10) == 1
    finally:
        loop.slot.order = Order.LEAVE
        loop.vanish()


def test_the_job_that_was_running_is_settled_before_the_quiet(
    client: Client, start: Start, gate: threading.Event
) -> None:
    job = client.enqueue("slow")
    loop = start()
    loop.until_state(WorkerState.BUSY)

    loop.order(Order.QUIET)
    gate.set()

    assert job.result(5) is True
    loop.until_state(WorkerState.QUIET)


def test_a_worker_leaves_while_it_blocks(start: Start) -> None:
    loop = start(block_timeout=20)
    loop.until_waiting()

    loop.leave()

    assert loop.slot.state == WorkerState.LEAVING


def test_a_leaving_worker_ends_its_job_and_leaves_held_ones_to_be_returned(
    client: Client, start: Start, gate: threading.Event
) -> None:
    client.enqueue("ran")
    first, *others = [client.enqueue("slow") for _ in range(3)]
    loop = start(prefetch=3)
    wait_until(lambda: (job := loop.slot.current_job()) and job.id == first.id, what="the first slow job")

    loop.order(Order.LEAVE)
    gate.set()
    loop.join()

    assert first.result(0) is True
    recovery = client.store.run(scripts.recover(client.keys.root, worker="w", cause=b"{}"))
    assert sorted(recovery.returned) == sorted(job.id for job in others)


def test_an_unregistered_worker_gets_no_job_until_its_first_beat(client: Client, start: Start) -> None:
    job = client.enqueue("ran", 1)
    loop = start(register=False)
    wait_until(lambda: len(client.store.client.client_list()) > 1)
    assert job.refresh().state is JobState.READY

    loop.beat()

    assert job.result(5) == 1


def test_an_unregistered_worker_can_leave(start: Start) -> None:
    loop = start(register=False)
    loop.until_state(WorkerState.EMPTY)

    loop.leave()


def test_the_masters_end_ends_the_worker(start: Start) -> None:
    loop = start(block_timeout=20)
    loop.until_waiting()

    loop.vanish()

    with pytest.raises(MasterGone):
        loop.join()


def test_a_result_that_redis_did_not_hear_is_told_again_when_it_is_back(
    own: Client, start: Start, private_redis: LocalServer, gate: threading.Event
) -> None:
    job = own.enqueue("slow")
    loop = start(own)
    loop.until_state(WorkerState.BUSY)

    private_redis.kill()
    gate.set()
    wait_until(lambda: loop.slot.succeeded == 1)
    private_redis.start()

    assert wait_until(lambda: result_of(own, job.id), what="the result") == [True]
    assert own.record(job.id).token == 1
    assert own.enqueue("ran", 7).result(5) == 7


def result_of(client: Client, job_id: str) -> list[Any]:
    with contextlib.suppress(Exception):
        return [client.result(job_id, timeout=0)]
    return []


def test_a_settlement_whose_answer_was_lost_is_recognised_as_repeated(
    client: Client, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = start()
    loop.until_waiting()
    wire = loop._loop._wire
    receive, lost = wire.receive, list[Any]()

    def lose_one() -> Any:
        answer = receive()
        if isinstance(answer, scripts.Settled) and not lost:
            lost.append(answer)
            raise RedisUnavailable("the answer was lost")
        return answer

    monkeypatch.setattr(wire, "receive", lose_one)
    job = client.enqueue("ran", 3)

    assert job.result(5) == 3
    wait_until(lambda: lost)
    assert client.enqueue("ran", 4).result(5) == 4
    assert int(client.store.client.hget(client.keys.stats, "succeeded") or 0) == 2
    assert loop.slot.stale == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_an_errand_that_another_signal_breaks_off_loses_and_doubles_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    ran: list[int] = []

    def write_a_part(data: bytes) -> None:
        wire._socket.sendall(data[: int(len(data) * share)])
        raise JobShutdown("in the midst")

    def longer() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(wire, "write", write_a_part)
            loop._loop._alarm.run_errand()

    task(name="count")(ran.append)
    task(name="longer", max_attempts=1)(longer)
    jobs = client.enqueue_many([Request("count", (1,)), Request("count", (2,)), Request("longer")])
    loop = LoopThread(client, prefetch=3)
    wire = loop._loop._wire
    monkeypatch.setattr(loop._loop, "_may_wait", lambda: True)

    loop.start()

    assert [job.result(5) for job in jobs[:2]] == [None, None]
    wait_until(lambda: jobs[2].refresh().state is JobState.DEAD, what="the end of the job that was broken off")
    loop.leave()
    assert ran == [1, 2]
    assert loop.slot.stale == 0


def test_a_worker_whose_connection_is_killed_while_it_blocks_comes_back(client: Client, start: Start) -> None:
    loop = start(block_timeout=20)
    loop.until_waiting()

    loop.cut_connection()

    assert client.enqueue("ran", 1).result(5) == 1
    loop.leave()


def test_a_server_that_forgot_its_scripts_is_taught_again(client: Client, start: Start) -> None:
    start(block_timeout=20).until_waiting()

    client.store.client.script_flush()

    assert client.enqueue("ran", 1).result(5) == 1


def test_a_job_that_was_taken_away_is_settled_in_vain_and_counted(
    client: Client, start: Start, gate: threading.Event
) -> None:
    client.enqueue("slow")
    loop = start()
    loop.until_state(WorkerState.BUSY)

    client.store.run(scripts.recover(client.keys.root, worker="w", cause=b"{}"))
    gate.set()

    wait_until(lambda: loop.slot.stale == 1, what="the refusal")


def test_a_key_of_a_wrong_type_is_named_and_does_not_stop_the_others(
    client: Client, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    client.store.client.set(client.keys.ready("default:high"), "spoiled")

    start()

    assert client.enqueue("ran", 1).result(5) == 1
    told = capfd.readouterr()
    assert "default:high" in told.out + told.err


@pytest.mark.slow
def test_a_half_open_connection_is_found_out(own: Client, start: Start, private_redis: LocalServer) -> None:
    loop = start(own, block_timeout=0.1)
    loop.until_waiting()

    os.kill(private_redis.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: loop._loop._wire._socket is None, 6, what="the worker to give its connection up")
    finally:
        os.kill(private_redis.pid, signal.SIGCONT)

    assert own.enqueue("ran", 1).result(10) == 1


def test_a_worker_does_not_spin_while_redis_refuses_its_commands(client: Client, start: Start) -> None:
    client.store.client.set(client.keys.inbox("w"), "spoiled")
    before = client.store.client.info("stats")["total_connections_received"]

    loop = start(reconnect_cap=4)
    wait_until(lambda: loop._loop._wire._socket is None, what="the first fault")
    threading.Event().wait(1.5)

    assert client.store.client.info("stats")["total_connections_received"] - before < 12
    loop.leave()


def test_a_job_on_its_last_try_is_not_begun_by_a_worker_that_ran_another(last_try: LastTry, start: Start) -> None:
    first = last_try.client.enqueue("ran", 1)
    job = last_try.enqueue(crashes=2)

    loop = start(prefetch=10)

    loop.join()
    assert first.result(1) == 1
    assert last_try.ran == []
    assert loop.slot.spent == Spent.LAST_TRY
    assert job.refresh().state in {JobState.READY, JobState.ACTIVE}


def test_a_fresh_worker_runs_a_last_try_alone_and_leaves(last_try: LastTry, start: Start) -> None:
    job = last_try.enqueue(crashes=2)
    other = last_try.client.enqueue("ran", 1)

    loop = start(prefetch=10)

    loop.join()
    assert job.result(1) == "survived"
    assert last_try.ran == [False]
    assert other.refresh().state is JobState.READY
    assert loop.slot.spent == Spent.LAST_TRY


@pytest.mark.parametrize(("crashes", "crash_limit"), [(0, 1), (0, 3), (1, 3)])
def test_any_other_job_is_no_last_try(last_try: LastTry, start: Start, crashes: int, crash_limit: int) -> None:
    job = last_try.enqueue(crashes=crashes)

    loop = start(crash_limit=crash_limit)

    assert job.result(5) == "survived"
    assert loop.slot.spent == Spent.NO
    assert last_try.client.enqueue("ran", 2).result(5) == 2


def test_a_worker_leaves_after_a_soft_timeout_and_settles_before(client: Client, start: Start) -> None:
    @task(name="late", max_attempts=1)
    def late() -> None:
        raise JobTimeout("ran 2 s, allowed are 1 s")

    job = client.enqueue("late")

    loop = start()

    loop.join()
    assert job.refresh().state is JobState.DEAD
    assert loop.slot.spent == Spent.SOFT_TIMEOUT


@dataclass
class LastTry:
    """Jobs of task `fragile` that have crashed before; `ran` holds what each saw of `stopping`."""

    client: Client
    ran: list[bool]

    def enqueue(self, *, crashes: int) -> Job:
        job = self.client.enqueue("fragile")
        # A job that crashed was claimed as often.
        self.client.store.client.hset(self.client.keys.job(job.id), mapping={"crashes": crashes, "token": crashes})
        return job


@pytest.fixture
def last_try(client: Client) -> LastTry:
    made = LastTry(client, [])

    @task(name="fragile")
    def fragile() -> str:
        made.ran.append(current_job().stopping)
        return "survived"

    return made
