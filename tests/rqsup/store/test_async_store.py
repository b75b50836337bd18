"""The master's way to Redis, on real servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client
from rqsup.errors import LoginRefused, RedisRefused, RedisUnavailable
from rqsup.settings import RedisSettings
from rqsup.store import scripts
from rqsup.store.async_store import AsyncStore
from rqsup.store.listening import keep_alive, listen
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw

Scene = Callable[[AsyncStore], Coroutine[Any, Any, None]]


def play(url: str, scene: Scene, **settings: Any) -> AsyncStore:
    """Run a scene with one store in a loop of its own."""

    async def run() -> AsyncStore:
        store = AsyncStore(RedisSettings(url=url, **settings))
        try:
            await scene(store)
        finally:
            await store.close()
        return store

    return asyncio.run(run())


def claim(raw: Raw) -> scripts.Call[scripts.Claim]:
    return scripts.claim(raw.root, worker="w", count=1, lanes=["q:normal"], queues=["q"], resume=False, wait=False)


def test_calls_and_commands_are_answered_to_those_who_asked(redis_server: LocalServer, raw: Raw) -> None:
    raw.redis.hset(raw.root + "hash", mapping={"a": "1", "b": "2"})

    async def scene(store: AsyncStore) -> None:
        answers = await asyncio.gather(
            store.command("PING"), store.run(claim(raw)), store.hash(raw.root + "hash"), store.command("ECHO", "x"),
        )  # fmt: skip

        assert answers[0] == b"PONG"
        assert answers[1].jobs == []
        assert answers[2] == {b"a": b"1", b"b": b"2"}
        assert answers[3] == b"x"
        assert store.ok

    play(redis_server.url, scene)


def test_a_server_that_lost_its_scripts_gets_them_again(private_redis: LocalServer) -> None:
    with Client(private_redis.url) as client:

        async def scene(store: AsyncStore) -> None:
            call = scripts.promote(client.keys.root)
            for _ in range(2):
                assert (await store.run(call)).moved == 0
                client.store.client.script_flush()
            again = [answer for answer in await store.run_many([call, call]) if not isinstance(answer, RedisRefused)]
            assert [answer.moved for answer in again] == [0, 0]

        play(private_redis.url, scene)


def test_an_error_is_told_as_a_refusal(redis_server: LocalServer, raw: Raw) -> None:
    raw.spoil(raw.keys.workers)

    async def scene(store: AsyncStore) -> None:
        with pytest.raises(RedisRefused, match="WRONGTYPE"):
            await store.run(claim(raw))
        assert "WRONGTYPE" in store.fault
        first, second = await store.run_many([claim(raw), claim(raw)])
        assert isinstance(first, RedisRefused)
        assert isinstance(second, RedisRefused)
        assert store.ok, "the server answered"

    play(redis_server.url, scene)


def test_a_wrong_password_is_told_at_once_without_the_password(private_redis: LocalServer) -> None:
    Client(private_redis.url).store.client.config_set("requirepass", "right")
    told: list[str] = []

    async def scene(store: AsyncStore) -> None:
        with pytest.raises(LoginRefused):
            await store.command("PING")
        with pytest.raises(RedisUnavailable, match="refuses the login") as caught:
            await store.await_server(lambda fault, _: told.append(fault))
        assert "wrong@" not in str(caught.value)

    play(private_redis.url.replace("unix://", "unix://:wrong@"), scene)

    assert told == [], "no second try"


def test_a_password_comes_from_a_file_that_may_change(private_redis: LocalServer, tmp_path: Path) -> None:
    Client(private_redis.url).store.client.config_set("requirepass", "right")
    secret = tmp_path / "password"
    secret.write_text("wrong\n")

    async def scene(store: AsyncStore) -> None:
        with pytest.raises(LoginRefused):
            await store.command("PING")
        secret.write_text("right\n")
        assert await store.command("PING") == b"PONG"

    play(private_redis.url, scene, password_file=str(secret))


def test_a_server_that_is_back_is_connected_to_anew(private_redis: LocalServer) -> None:
    async def scene(store: AsyncStore) -> None:
        assert await store.command("PING") == b"PONG"
        private_redis.kill()
        with pytest.raises(RedisUnavailable):
            await store.command("PING")
        assert not store.ok
        private_redis.start()
        assert await store.command("PING") == b"PONG"
        assert store.ok

    play(private_redis.url, scene)


def test_a_server_that_does_not_answer_costs_no_more_than_the_deadline(private_redis: LocalServer) -> None:
    async def scene(store: AsyncStore) -> None:
        await store.command("PING")
        server = int((await store.command("INFO", "server")).decode().partition("process_id:")[2].split()[0])
        os.kill(server, signal.SIGSTOP)
        try:
            with pytest.raises(RedisUnavailable, match=r"no answer in 0\.3 s"):
                await store.command("PING")
        finally:
            os.kill(server, signal.SIGCONT)
        assert await store.command("PING") == b"PONG", "on a new connection, on which no late answer comes"

    play(private_redis.url, scene, socket_timeout=0.3)


def test_one_who_gives_up_disturbs_nobody(redis_server: LocalServer) -> None:
    async def scene(store: AsyncStore) -> None:
        await store.command("PING")
        given_up = asyncio.ensure_future(store.command("ECHO", "a"))
        stays = asyncio.ensure_future(store.command("ECHO", "b"))
        await asyncio.sleep(0)
        given_up.cancel()

        assert await stays == b"b"
        assert given_up.cancelled()

    play(redis_server.url, scene)


def test_a_message_on_the_channel_is_heard_and_its_end_is_told(private_redis: LocalServer) -> None:
    with Client(private_redis.url) as client:

        async def scene(store: AsyncStore) -> None:
            heard: asyncio.Queue[None] = asyncio.Queue()
            listening = asyncio.ensure_future(store.listen("news", lambda: heard.put_nowait(None)))
            await asyncio.wait_for(heard.get(), 30)
            assert client.store.client.publish("news", "x") == 1
            await asyncio.wait_for(heard.get(), 30)
            private_redis.kill()
            with pytest.raises(RedisUnavailable, match=r"closed the channel|no channel"):
                await asyncio.wait_for(listening, 30)

        play(private_redis.url, scene)


def test_one_who_may_not_listen_is_told(private_redis: LocalServer) -> None:
    with Client(private_redis.url) as client:
        client.store.client.execute_command("ACL", "SETUSER", "deaf", "on", ">x", "~*", "+@all", "resetchannels")

    async def scene(store: AsyncStore) -> None:
        with pytest.raises(RedisRefused, match="NOPERM"):
            await store.listen("news", lambda: pytest.fail("it listens"))

    play(private_redis.url.replace("unix://", "unix://deaf:x@"), scene)


def test_nobody_there_to_listen_to_is_told(tmp_path: Path) -> None:
    async def scene(store: AsyncStore) -> None:
        with pytest.raises(RedisUnavailable, match="no channel"):
            await store.listen("news", lambda: None)

    play(f"unix://{tmp_path}/none.sock", scene)


def test_a_server_that_never_answers_is_no_channel() -> None:
    async def scene() -> None:
        async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = RedisSettings(url=f"redis://127.0.0.1:{port}", connect_timeout=0.2)
        with pytest.raises(RedisUnavailable, match="no channel"):
            await asyncio.wait_for(listen(settings, "news", lambda: pytest.fail("it listens")), 30)
        server.close()

    asyncio.run(scene())


def test_the_kernel_looks_after_a_silent_channel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as opened:
        keep_alive(opened)

        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < 30
