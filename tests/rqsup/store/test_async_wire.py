"""The asyncio client's one connection, on real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from rqsup import Client
from rqsup.errors import RedisUnavailable, WrongEventLoop
from rqsup.settings import RedisSettings
from rqsup.store import pipe, scripts
from rqsup.store.async_wire import AsyncWire
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw, envelope

Body = Callable[[AsyncWire], Awaitable[None]]


def with_wire(url: str, body: Body, **settings: Any) -> None:
    """Run a coroutine function with a connection of its own."""

    async def run() -> None:
        wire = AsyncWire(RedisSettings(url=url, **settings), name="test-async-wire", scripts=("enqueue",))
        try:
            await body(wire)
        finally:
            await wire.close()

    asyncio.run(run())


@contextmanager
def standing_still(server: LocalServer) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def until(predicate: Callable[[], object], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not predicate():  # noqa: ASYNC110 - what is waited for is no event of this loop
            await asyncio.sleep(0.001)


def under_way(wire: AsyncWire) -> int:
    return wire._pipe._under_way if wire._pipe else 0


def enqueue(raw: Raw, job_id: str) -> scripts.Call[str]:
    return scripts.enqueue(raw.root, job_id=job_id, queue="q", level="normal", envelope=envelope(job_id))


def test_ten_thousand_calls_at_once_get_their_own_answers_over_one_connection(redis_server: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        seen = []

        async def ask(number: int) -> None:
            answer = await wire.command("ECHO", str(number))
            seen.append(under_way(wire))
            assert answer == str(number).encode()

        await asyncio.gather(*(ask(number) for number in range(10_000)))
        clients = await wire.command("CLIENT", "LIST")
        assert clients.count(b"name=test-async-wire") == 1
        assert len(seen) == 10_000
        assert max(seen) <= pipe.MOST_UNDER_WAY

    with_wire(redis_server.url, body)


def test_calls_of_one_turn_leave_in_one_write_and_in_order(redis_server: LocalServer, raw: Raw) -> None:
    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        assert wire._pipe is not None
        transport, writes = wire._pipe._transport, []

        class Spy:
            def write(self, data: bytes) -> None:
                writes.append(len(data))
                assert transport is not None
                transport.write(data)

            def abort(self) -> None:
                assert transport is not None
                transport.abort()

        wire._pipe._transport = cast(asyncio.Transport, Spy())  # what the pipe uses of it
        await asyncio.gather(*(wire.run(enqueue(raw, f"j{number}")) for number in range(100)))
        assert len(writes) == 1

    with_wire(redis_server.url, body)
    assert raw.ready("q:normal") == [f"j{number}" for number in range(100)]


def test_a_cancelled_caller_disturbs_no_other(private_redis: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        with standing_still(private_redis):
            tasks = [asyncio.create_task(wire.command("ECHO", str(number))) for number in range(3_000)]
            await until(lambda: under_way(wire) == pipe.MOST_UNDER_WAY)
            # Both those whose calls are under way, and those that wait for room.
            for task in tasks[::3]:
                task.cancel()
            await asyncio.sleep(0)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 3 == 0:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == str(number).encode()
        assert under_way(wire) == 0

    with_wire(private_redis.url, body, socket_timeout=30)


def test_a_cancelled_caller_does_not_end_the_connecting_of_the_others(redis_server: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        first, second = (asyncio.create_task(wire.command("ECHO", text)) for text in ("a", "b"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == b"b"

    with_wire(redis_server.url, body)


def test_a_server_that_dies_fails_all_who_wait_and_the_next_call_connects(private_redis: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        os.kill(private_redis.pid, signal.SIGSTOP)
        tasks = [asyncio.create_task(wire.command("ECHO", str(number))) for number in range(500)]
        await until(lambda: under_way(wire) == 500)
        private_redis.kill()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(answer) for answer in answers} == {RedisUnavailable}
        with pytest.raises(RedisUnavailable):
            await wire.command("PING")

        private_redis.start()
        assert await wire.command("ECHO", "again") == b"again"

    with_wire(private_redis.url, body, socket_timeout=30)


def test_a_silent_server_fails_its_callers_in_time_and_no_answer_comes_late(private_redis: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        with standing_still(private_redis):
            answers = await asyncio.gather(
                *(wire.command("ECHO", str(number)) for number in range(50)), return_exceptions=True
            )
            assert {str(answer) for answer in answers} == {"no answer in 1 s"}
        assert await wire.command("ECHO", "mine") == b"mine"

    with_wire(private_redis.url, body, socket_timeout=1)


def test_who_waits_for_room_goes_on_with_the_next_connection(private_redis: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        with standing_still(private_redis):
            tasks = [asyncio.create_task(wire.command("ECHO", str(number))) for number in range(1_500)]
            await until(lambda: under_way(wire) == pipe.MOST_UNDER_WAY)
            assert wire._pipe is not None
            wire._pipe.fail("cut by the test")
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(answer, RedisUnavailable) for answer in answers[:1_000]] == [True] * 1_000
        assert answers[1_000:] == [str(number).encode() for number in range(1_000, 1_500)]

    with_wire(private_redis.url, body, socket_timeout=30)


def test_scripts_that_the_server_lost_are_loaded_again(redis_server: LocalServer, raw: Raw) -> None:
    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        raw.redis.script_flush()
        answers = await asyncio.gather(*(wire.run(enqueue(raw, f"j{number}")) for number in range(50)))
        raw.redis.script_flush()
        answers += await wire.run_many([enqueue(raw, f"k{number}") for number in range(50)])
        assert set(answers) == {b"ready"}
        assert await wire.run_many([]) == []

    with_wire(redis_server.url, body)
    assert len(raw.ready("q:normal")) == 100


def test_large_calls_hold_a_bounded_amount_of_memory(redis_server: LocalServer) -> None:
    blob = b"x" * 1_000_000

    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        largest = 0

        async def ask() -> None:
            nonlocal largest
            answer = await wire.command("ECHO", blob)
            assert wire._pipe is not None
            largest = max(largest, wire._pipe._unsent_size)
            assert len(answer) == len(blob)

        await asyncio.gather(*(ask() for _ in range(150)))
        assert largest <= pipe.MOST_UNSENT + pipe.MOST_ADMITTED * 1_000_100

    with_wire(redis_server.url, body)


def test_another_loop_is_told_clearly_and_may_take_over_after_close(redis_server: LocalServer) -> None:
    wire = AsyncWire(RedisSettings(url=redis_server.url))
    mine, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert mine.run_until_complete(wire.command("PING")) == b"PONG"
        for act in (wire.command("PING"), wire.close()):
            with pytest.raises(WrongEventLoop, match="make one in each loop"):
                other.run_until_complete(act)
        assert mine.run_until_complete(wire.command("PING")) == b"PONG"
        mine.run_until_complete(wire.close())
        assert other.run_until_complete(wire.command("PING")) == b"PONG"
        other.run_until_complete(wire.close())
    finally:
        mine.close()
        other.close()


def test_close_waits_for_the_answers_that_are_due(redis_server: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        await wire.command("PING")
        tasks = [asyncio.create_task(wire.command("ECHO", str(number))) for number in range(1_500)]
        await asyncio.sleep(0)  # each has made its call or waits for room, none has its answer
        assert under_way(wire) == pipe.MOST_UNDER_WAY
        for task in tasks[::3]:
            task.cancel()
        await wire.close()
        await asyncio.sleep(0)
        assert all(task.done() for task in tasks)
        left = [number for number in range(1_500) if number % 3]
        assert [tasks[number].result() for number in left] == [str(number).encode() for number in left]
        await wire.close()
        assert await wire.command("PING") == b"PONG"

    with_wire(redis_server.url, body)


def test_tls_is_verified(tls: tuple[int, Path, Path]) -> None:
    port, ca, other = tls

    async def large(wire: AsyncWire) -> None:
        assert len(await wire.command("ECHO", b"x" * 500_000)) == 500_000

    with_wire(f"rediss://localhost:{port}", large, tls_ca_file=str(ca))
    with_wire(f"rediss://127.0.0.1:{port}", large, tls_verify=False)
    for url, authority in ((f"rediss://localhost:{port}", other), (f"rediss://127.0.0.1:{port}", ca)):
        with pytest.raises(RedisUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            with_wire(url, large, tls_ca_file=str(authority))


def test_a_login_and_a_database_are_used(private_redis: LocalServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right\n")
    with Client(private_redis.url) as admin:
        admin.store.client.config_set("requirepass", "right")

    async def body(wire: AsyncWire) -> None:
        assert b" db=3 " in await wire.command("CLIENT", "INFO")

    with_wire(f"{private_redis.url}?db=3", body, password_file=str(tmp_path / "password"))
    with_wire(private_redis.url.replace("unix://", "unix://default:right@") + "?db=3", body)
    with pytest.raises(RedisUnavailable, match="NOAUTH"):
        with_wire(private_redis.url, body)


def test_what_is_no_redis_is_told() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await reader.read()
        # Since Python 3.12, the server's end waits for that of each connection.
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(greet, "127.0.0.1") as server:
            port = server.sockets[0].getsockname()[1]
            wire = AsyncWire(RedisSettings(url=f"redis://127.0.0.1:{port}"))
            with pytest.raises(RedisUnavailable, match="no Redis"):
                await wire.command("PING")
            await wire.close()

    asyncio.run(run())


def test_nobody_waits_for_room_on_a_connection_that_has_failed() -> None:
    async def run() -> None:
        failed = pipe.Pipe(asyncio.get_running_loop(), 1.0)
        failed.fail("gone")
        async with asyncio.timeout(30):
            # As many callers as waited for it to open, and find it lost.
            for _ in range(2 * pipe.MOST_UNDER_WAY):
                await failed.room(1)

    asyncio.run(run())


def test_who_waits_for_the_connection_is_told_that_the_client_was_closed() -> None:
    async def body(wire: AsyncWire) -> None:
        waiting = asyncio.create_task(wire.command("PING"))
        await until(lambda: wire._opening)

        await wire.close()

        with pytest.raises(RedisUnavailable, match="closed"):
            await waiting

    with socket.create_server(("127.0.0.1", 0)) as silent:
        with_wire(f"redis://127.0.0.1:{silent.getsockname()[1]}", body, connect_timeout=30)


def test_a_command_that_cannot_be_written_takes_no_room(redis_server: LocalServer) -> None:
    async def body(wire: AsyncWire) -> None:
        assert await wire.command("PING") == b"PONG"
        with pytest.raises(UnicodeEncodeError):
            await wire.command("ECHO", "\udcff")
        assert under_way(wire) == 0

    with_wire(redis_server.url, body)
