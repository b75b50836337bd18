"""A client's connections: shared by threads, not by processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rqsup.errors import RedisUnavailable
from rqsup.settings import RedisSettings
from rqsup.store import scripts
from rqsup.store.lines import Lines
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw, envelope


@pytest.fixture
def lines(redis_server: LocalServer) -> Iterator[Lines]:
    lines = Lines(RedisSettings(url=redis_server.url, pool_size=3))
    yield lines
    lines.close()


def calls(raw: Raw, count: int) -> Iterator[scripts.Call[str]]:
    for number in range(count):
        job_id = f"j{number}"
        yield scripts.enqueue(raw.root, job_id=job_id, queue="q", level="normal", envelope=envelope(job_id))


def test_many_threads_use_few_connections(lines: Lines) -> None:
    def ask(number: int) -> Any:
        assert lines.command("ECHO", str(number)) == str(number).encode()
        return lines.command("CLIENT", "ID")

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(1_000)))) <= 3


def test_one_thread_uses_one_connection(lines: Lines) -> None:
    assert len({lines.command("CLIENT", "ID") for _ in range(20)}) == 1


def test_too_many_threads_are_told_what_to_do(redis_server: LocalServer, raw: Raw) -> None:
    lines = Lines(RedisSettings(url=redis_server.url, pool_size=1, connect_timeout=1))

    def nested() -> Iterator[scripts.Call[str]]:
        for call in calls(raw, 1):
            yield call
            with pytest.raises(RedisUnavailable, match=r"redis\.pool_size"):
                lines.command("PING")

    assert len(lines.run_many(nested(), 100, 1 << 20)) == 1
    lines.close()


def test_a_chunk_ends_at_its_jobs_or_its_bytes(lines: Lines, raw: Raw) -> None:
    waiting = calls(raw, 1_000)

    assert len(lines.run_many(waiting, 120, 1 << 20)) == 120
    assert len(lines.run_many(waiting, 120, 1)) == 1
    assert len(lines.run_many(waiting, 1, 1 << 20)) == 1
    assert len(lines.run_many(waiting, 2_000, 1 << 30)) == 878
    assert lines.run_many(waiting, 120, 1 << 20) == []
    assert raw.ready("q:normal") == [f"j{number}" for number in range(1_000)]


def test_scripts_that_the_server_lost_are_loaded_again(lines: Lines, raw: Raw) -> None:
    raw.redis.script_flush()
    answers = [answer for _, answer in lines.run_many(calls(raw, 200), 500, 1 << 20)]
    raw.redis.script_flush()

    assert set(answers) == {b"ready"}
    assert lines.run(next(calls(raw, 1))) == b"exists"
    assert raw.ready("q:normal") == [f"j{number}" for number in range(200)]


def test_an_interrupted_call_leaves_no_answer_to_the_next(lines: Lines, raw: Raw) -> None:
    def interrupted() -> Iterator[scripts.Call[str]]:
        yield from calls(raw, 150)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lines.run_many(interrupted(), 500, 1 << 20)

    assert [lines.command("ECHO", str(number)) for number in range(20)] == [str(n).encode() for n in range(20)]


def test_a_silent_server_is_unavailable_and_its_late_answer_is_nobodys(private_redis: LocalServer) -> None:
    lines = Lines(RedisSettings(url=private_redis.url, socket_timeout=1))
    lines.command("PING")
    os.kill(private_redis.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RedisUnavailable):
            lines.command("ECHO", "late")
    finally:
        os.kill(private_redis.pid, signal.SIGCONT)

    assert lines.command("ECHO", "mine") == b"mine"
    lines.close()


def test_an_idle_connection_that_the_server_closed_is_opened_anew(private_redis: LocalServer) -> None:
    lines = Lines(RedisSettings(url=private_redis.url))
    lines.command("PING")
    private_redis.kill()
    private_redis.start()

    assert lines.command("ECHO", "again") == b"again"
    lines.close()


def test_a_forked_child_has_connections_of_its_own(lines: Lines) -> None:
    mine = lines.command("CLIENT", "ID")
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()

    def child() -> None:
        answers.put([lines.command("CLIENT", "ID") for _ in range(3)])
        lines.close()

    process = context.Process(target=child)
    process.start()
    theirs = set(answers.get())
    process.join(30)

    assert process.exitcode == 0
    assert len(theirs) == 1
    assert mine not in theirs
    assert lines.command("CLIENT", "ID") == mine
