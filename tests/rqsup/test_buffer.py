"""The buffer: jobs leave in chunks, none is lost or doubled, and what is refused is told."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from rqsup import Client, Request, errors
from rqsup.sending import Sending
from rqsup.settings import LimitSettings
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw
from tests.waiting import wait_until


@pytest.fixture
def mortal(private_redis: LocalServer) -> Iterator[Client]:
    """A client of a server that may be stopped and killed."""
    with Client(private_redis.url) as client:
        yield client


@contextmanager
def standing_still(server: LocalServer) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_jobs_are_accepted_in_order_when_the_block_is_left(client: Client) -> None:
    with client.buffer() as buffer:
        jobs = [buffer.enqueue("t", number) for number in range(3_000)]

    assert [job.id for job in jobs] == Raw(client).ready("default:normal")
    assert len(buffer) == 0
    assert jobs[0].refresh().state == "ready"


@pytest.mark.parametrize(
    "wrong",
    [{"max_jobs": 0}, {"max_bytes": 0}, {"max_delay_s": -1}, {"max_delay_s": float("nan")}, {"patience_s": -0.1}],
)
def test_a_buffer_in_which_nothing_has_room_is_refused_when_it_is_made(client: Client, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} of a buffer must be"):
        client.buffer(**wrong)


def test_jobs_leave_by_themselves_after_a_time(client: Client) -> None:
    with client.buffer(max_delay_s=0.01) as buffer:
        job = buffer.enqueue("t")
        wait_until(lambda: Raw(client).ready("default:normal") == [job.id])


def test_flush_waits_until_all_is_accepted(client: Client) -> None:
    with client.buffer(max_delay_s=3_600) as buffer:
        for number in range(10):
            buffer.enqueue("t", number)
        assert Raw(client).ready("default:normal") == []
        buffer.flush()
        assert len(Raw(client).ready("default:normal")) == 10
        buffer.flush()


def test_a_full_chunk_does_not_wait_for_the_time(client: Client) -> None:
    with client.buffer(max_delay_s=3_600) as buffer:
        for number in range(500):
            buffer.enqueue("t", number)
        wait_until(lambda: len(Raw(client).ready("default:normal")) == 500)
        # Large jobs make a full chunk sooner.
        for _ in range(3):
            buffer.enqueue("large", "x" * 500_000)
        wait_until(lambda: len(buffer) == 0)


def test_threads_share_a_buffer(client: Client) -> None:
    with client.buffer(max_jobs=700) as buffer, ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: buffer.enqueue("t", number).id, range(5_000)))

    assert len(set(ids)) == 5_000
    assert sorted(Raw(client).ready("default:normal")) == sorted(ids)


def test_a_full_buffer_makes_its_users_wait(mortal: Client, private_redis: LocalServer) -> None:
    mortal.enqueue("warm-up")
    with mortal.buffer(max_jobs=10) as buffer, standing_still(private_redis):
        for number in range(10):
            buffer.enqueue("t", number)
        with pytest.raises(errors.BufferFull, match="holds 10 jobs"):
            buffer.send(Request("t"), timeout=0.05)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(buffer.enqueue, "t", 10)
            assert not waiting.done()
            os.kill(private_redis.pid, signal.SIGCONT)
            waiting.result(30)

    assert len(Raw(mortal).ready("default:normal")) == 12


def test_a_buffer_is_also_full_by_its_bytes(mortal: Client, private_redis: LocalServer) -> None:
    mortal.enqueue("warm-up")
    with mortal.buffer(max_bytes=100_000) as buffer, standing_still(private_redis):
        buffer.enqueue("t", "x" * 100_000)
        with pytest.raises(errors.BufferFull):
            buffer.send(Request("t"), timeout=0.05)


def test_a_server_killed_meanwhile_loses_and_doubles_nothing(mortal: Client, private_redis: LocalServer) -> None:
    with mortal.buffer(max_jobs=1_000, patience_s=60) as buffer, ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(lambda: [buffer.enqueue("t").id for _ in range(2_000)]) for _ in range(2)]
        for _ in range(3):
            wait_until(lambda: mortal.store.client.exists(mortal.keys.stats), what="an accepted job")
            private_redis.kill()
            private_redis.start()
        ids = [job_id for one in sent for job_id in one.result(60)]

    assert sorted(Raw(mortal).ready("default:normal")) == sorted(ids)
    assert Raw(mortal).stat("accepted") == 4_000


def test_refused_jobs_are_told_once_and_the_others_are_accepted(client: Client) -> None:
    raw = Raw(client)
    raw.spoil(raw.keys.ready("odd:normal"))
    with client.buffer() as buffer:
        jobs = [buffer.send(Request("t", (number,), queue="odd" if number % 5 == 0 else "q")) for number in range(20)]
        with pytest.raises(errors.JobsRefused, match="4 job") as caught:
            buffer.flush()
        buffer.flush()

    assert [refusal.job_id for refusal in caught.value.refused] == [jobs[number].id for number in range(0, 20, 5)]
    assert all("WRONGTYPE" in str(refusal.fault) for refusal in caught.value.refused)
    assert [refusal.request.args for refusal in caught.value.refused] == [(0,), (5,), (10,), (15,)]
    assert len(raw.ready("q:normal")) == 16


def test_a_full_queue_is_a_refusal_and_the_jobs_may_be_sent_again(client: Client) -> None:
    settings = msgspec.structs.replace(client.settings, limits=LimitSettings(queue_length=3))
    with Client(settings=settings) as narrow:
        buffer = narrow.buffer()
        jobs = [buffer.enqueue("t", number) for number in range(5)]
        with pytest.raises(errors.JobsRefused) as caught:
            buffer.close()

    refused = caught.value.refused
    assert {type(refusal.fault) for refusal in refused} == {errors.QueueFull}
    client.enqueue_many(refusal.request for refusal in refused)
    assert Raw(client).ready("default:normal") == [job.id for job in jobs]


def test_refusals_that_nobody_asks_for_fill_the_buffer_and_are_told_there(client: Client) -> None:
    raw = Raw(client)
    raw.spoil(raw.keys.ready("default:normal"))
    with client.buffer(max_jobs=5) as buffer:
        for number in range(5):
            buffer.enqueue("t", number)
        wait_until(lambda: len(buffer) == 0)
        with pytest.raises(errors.JobsRefused, match="5 job"):
            buffer.enqueue("t", 5)
        buffer.flush()


def test_patience_ends_and_what_was_not_sent_is_handed_back(mortal: Client, private_redis: LocalServer) -> None:
    mortal.enqueue("warm-up")
    private_redis.kill()
    buffer = mortal.buffer(patience_s=0.2)
    jobs = [buffer.enqueue("t", number) for number in range(3)]
    with pytest.raises(errors.RedisUnavailable, match="3 jobs are still in the buffer"):
        buffer.flush()
    assert len(buffer) == 3
    with pytest.raises(errors.RedisUnavailable):
        buffer.flush(timeout=0.01)
    with pytest.raises(errors.JobsRefused, match="3 job") as caught:
        buffer.close()
    assert [refusal.job_id for refusal in caught.value.refused] == [job.id for job in jobs]
    assert not any("will be sent" in str(refusal.fault) for refusal in caught.value.refused)
    assert len(buffer) == 0

    private_redis.start()
    mortal.enqueue_many(refusal.request for refusal in caught.value.refused)
    assert Raw(mortal).ready("default:normal")[-3:] == [job.id for job in jobs]


def test_a_server_that_comes_back_gets_what_waited(mortal: Client, private_redis: LocalServer) -> None:
    private_redis.kill()
    with mortal.buffer(patience_s=0.1) as buffer:
        job = buffer.enqueue("t")
        with pytest.raises(errors.RedisUnavailable):
            buffer.flush()
        private_redis.start()
        wait_until(lambda: len(buffer) == 0)
    assert job.refresh().state == "ready"


def test_a_job_outside_the_rules_is_refused_at_once(client: Client) -> None:
    with client.buffer() as buffer:
        with pytest.raises(errors.InvalidJob):
            buffer.enqueue("bad name")
        with pytest.raises(errors.PayloadTooLarge):
            buffer.enqueue("t", "x" * 2**20)
        assert len(buffer) == 0


def test_a_closed_buffer_may_be_used_again(client: Client) -> None:
    buffer = client.buffer()
    for _ in range(2):
        with buffer:
            buffer.enqueue("t")
    assert len(Raw(client).ready("default:normal")) == 2


def test_a_forked_child_starts_with_an_empty_one(client: Client) -> None:
    with client.buffer(max_delay_s=3_600) as buffer:
        buffer.enqueue("parent")
        context = multiprocessing.get_context("fork")
        counts: Any = context.SimpleQueue()

        def child() -> None:
            buffer.enqueue("child")
            buffer.flush()
            counts.put(len(Raw(client).ready("default:normal")))

        process = context.Process(target=child)
        process.start()
        assert counts.get() == 1
        process.join(30)
        assert process.exitcode == 0

    assert len(Raw(client).ready("default:normal")) == 2


def test_a_forgotten_buffer_is_sent_at_the_end_of_the_process(client: Client, redis_server: LocalServer) -> None:
    program = (
        "import sys; from rqsup import Client\n"
        "buffer = Client(sys.argv[1], namespace=sys.argv[2]).buffer(max_delay_s=3600)\n"
        "for number in range(10): buffer.enqueue('t', number)\n"
    )
    command = [sys.executable, "-c", program, redis_server.url, client.keys.namespace]
    subprocess.run(command, check=True, timeout=60)

    assert len(Raw(client).ready("default:normal")) == 10


def test_who_waits_in_flush_does_not_shorten_the_pauses_between_two_tries() -> None:
    tried: list[float] = []

    def deliver(_sendings: Iterator[Sending]) -> list[tuple[Sending, Any]]:
        tried.append(time.monotonic())
        raise errors.RedisUnavailable("away")

    with Client("redis://127.0.0.1:1") as client:
        buffer = client.buffer(patience_s=0.5)
        buffer._deliver = deliver
        buffer.enqueue("t")

        with pytest.raises(errors.JobsRefused):
            buffer.close()

    # 0.05, 0.1, 0.2 and 0.4 s apart; without pauses, thousands.
    assert 1 < len(tried) <= 6


def test_a_job_put_in_while_another_thread_closes_the_buffer_is_sent_before_the_end_of_the_process(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: set[Any] = set()
    monkeypatch.setattr(atexit, "register", at_exit.add)
    monkeypatch.setattr(atexit, "unregister", at_exit.discard)
    buffer = client.buffer()
    jobs = [buffer.enqueue("t")]
    thread = buffer._thread or pytest.fail("no thread")
    join = thread.join

    def join_and_enqueue() -> None:
        join()
        jobs.append(buffer.enqueue("t"))

    monkeypatch.setattr(thread, "join", join_and_enqueue)

    buffer.close()

    assert at_exit == {buffer.close}
    buffer.close()
    assert at_exit == set()
    assert Raw(client).ready("default:normal") == [job.id for job in jobs]


def test_flush_goes_on_after_a_fault_that_ended_the_thread(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = client.buffer()
    deliver, told = buffer._deliver, threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _fault: told.set())
    monkeypatch.setattr(buffer, "_deliver", lambda sendings: next(iter([*sendings][1:])))
    job = buffer.enqueue("t")
    assert told.wait(10)
    monkeypatch.setattr(buffer, "_deliver", deliver)
    wait_until(lambda: buffer._thread is None)

    buffer.flush()

    assert Raw(client).ready("default:normal") == [job.id]
    buffer.close()
