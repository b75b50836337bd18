"""The worker's own connection, on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client
from rqsup.errors import RedisUnavailable
from rqsup.settings import RedisSettings
from rqsup.store import scripts, wire
from rqsup.store.async_store import AsyncStore
from rqsup.store.server import LocalServer
from rqsup.store.wire import Wire, wait_readable
from tests.rqsup.store.raw import Raw
from tests.waiting import wait_until


def open_wire(url: str, **settings: Any) -> Wire:
    opened = Wire(RedisSettings(url=url, **settings), name="test-wire", scripts=("claim", "begin", "settle"))
    opened.connect()
    return opened


@pytest.fixture
def open_one(redis_server: LocalServer) -> Iterator[Wire]:
    """An open connection to the shared server."""
    opened = open_wire(redis_server.url)
    yield opened
    opened.close()


@pytest.fixture
def wakeup() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Something to wait on besides the connection, and its other end."""
    mine, its = socket.socketpair()
    yield mine, its
    mine.close()
    its.close()


def claim(raw: Raw) -> scripts.Call[scripts.Claim]:
    return scripts.claim(raw.root, worker="w", count=1, lanes=["q:normal"], queues=["q"], resume=False, wait=False)


def begin(root: str) -> scripts.Call[scripts.Claim]:
    return scripts.begin(root, worker="w")


NOTHING = scripts.Claim([], [])


def test_answers_come_in_the_order_of_the_calls(open_one: Wire, raw: Raw) -> None:
    for job_id in ("a", "b", "c"):
        raw.enqueue(job_id)

    open_one.send(claim(raw), claim(raw))
    open_one.send(claim(raw))

    assert [open_one.receive().jobs[0].id for _ in range(3)] == ["a", "b", "c"]
    assert open_one.run(claim(raw)).jobs == []


def test_large_answers_come_in_many_pieces(open_one: Wire, raw: Raw) -> None:
    raw.redis.set(raw.root + "large", b"x" * 5_000_000)

    assert open_one.command("GET", raw.root + "large") == b"x" * 5_000_000


def test_the_connection_has_its_name(open_one: Wire, raw: Raw) -> None:
    assert "test-wire" in {one["name"] for one in raw.redis.client_list()}


def test_an_error_reply_is_told(open_one: Wire, raw: Raw) -> None:
    raw.spoil(raw.keys.workers)

    with pytest.raises(RedisUnavailable, match="WRONGTYPE"):
        open_one.run(claim(raw))


def test_a_connection_that_was_killed_is_told_and_can_be_opened_anew(open_one: Wire, raw: Raw) -> None:
    for one in raw.redis.client_list():
        if one["name"] == "test-wire":
            raw.redis.client_kill_filter(_id=one["id"])

    with pytest.raises(RedisUnavailable):
        open_one.command("PING")

    open_one.connect()
    assert open_one.command("PING") == b"PONG"


def test_a_closed_connection_is_closed_even_if_another_process_holds_it(open_one: Wire, raw: Raw) -> None:
    held = os.dup(open_one.fileno())
    try:
        open_one.close()

        wait_until(lambda: "test-wire" not in {one["name"] for one in raw.redis.client_list()}, what="its end")
    finally:
        os.close(held)


def test_nothing_is_sent_without_a_connection(redis_server: LocalServer) -> None:
    closed = Wire(RedisSettings(url=redis_server.url), name="x", scripts=())

    with pytest.raises(RedisUnavailable, match="not connected"):
        closed.command("PING")


def test_no_server_is_told(tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailable, match="does not answer"):
        open_wire(f"unix://{tmp_path}/none.sock")


def test_bytes_of_another_protocol_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pid = os.fork()
        if pid == 0:
            connection, _ = server.accept()
            with contextlib.suppress(OSError):
                while connection.recv(4096):
                    connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            os._exit(0)
        try:
            with pytest.raises(RedisUnavailable):
                open_wire(f"redis://127.0.0.1:{server.getsockname()[1]}", socket_timeout=2.0)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize("read", [Wire.answer, Wire.receive_ready])
def test_bytes_of_another_protocol_behind_an_answer_are_told(
    read: Callable[[Wire], Any], redis_server: LocalServer
) -> None:
    opened = Wire(RedisSettings(url=redis_server.url), name="", scripts=())
    opened._socket, theirs = socket.socketpair()
    theirs.sendall(b"+OK\r\n?\r\n")

    with theirs, pytest.raises(RedisUnavailable, match="no Redis"):
        _ = [read(opened), read(opened)]
    opened.close()


def test_an_address_that_cannot_be_read_keeps_its_password_to_itself() -> None:
    with pytest.raises(RedisUnavailable, match="%2F") as told:
        Wire(RedisSettings(url="redis://:sEcr/et@host:6379"), name="", scripts=()).connect()
    assert "sEcr" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


def test_a_blocking_move_returns_what_came(
    open_one: Wire, raw: Raw, wakeup: tuple[socket.socket, socket.socket]
) -> None:
    source, target, then = raw.root + "s", raw.root + "t", begin(raw.root)

    assert open_one.move_blocking(source, target, 0.01, wakeup[0], then) == (False, NOTHING)
    raw.redis.lpush(source, "x")
    assert open_one.move_blocking(source, target, 5, wakeup[0], then) == (True, NOTHING)
    assert raw.redis.lrange(target, 0, -1) == [b"x"]


def test_what_is_sent_along_runs_when_the_wait_ends(
    open_one: Wire, raw: Raw, wakeup: tuple[socket.socket, socket.socket]
) -> None:
    raw.claim(wait=True)
    sender = threading.Timer(0.05, raw.enqueue, ("a",))
    sender.start()

    answer = open_one.move_blocking(raw.keys.inbox("w"), raw.keys.processing("w"), 20, wakeup[0], begin(raw.root))

    sender.join()
    assert answer is not None
    moved, handed = answer
    assert moved
    assert [(job.id, job.token) for job in handed.jobs] == [("a", 1)]
    assert raw.job("a")["state"] == "active"


def test_a_wakeup_breaks_the_wait_and_a_new_connection_forgets_it(
    open_one: Wire, raw: Raw, wakeup: tuple[socket.socket, socket.socket]
) -> None:
    mine, its = wakeup
    its.send(b"L")

    assert open_one.move_blocking(raw.root + "s", raw.root + "t", 5, mine, begin(raw.root)) is None
    mine.recv(1)
    open_one.connect()

    assert open_one.command("PING") == b"PONG"


def test_a_blocking_command_that_does_not_come_back_is_a_half_open_connection(
    private_redis: LocalServer, wakeup: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LATE_S", 0.1)
    opened = open_wire(private_redis.url)
    os.kill(private_redis.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RedisUnavailable, match="half-open"):
            opened.move_blocking("s", "t", 0.1, wakeup[0], begin("r:"))
    finally:
        os.kill(private_redis.pid, signal.SIGCONT)
        opened.close()


def test_a_server_that_does_not_answer_in_time_is_told(private_redis: LocalServer) -> None:
    opened = open_wire(private_redis.url, socket_timeout=0.1)
    os.kill(private_redis.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RedisUnavailable):
            opened.command("PING")
    finally:
        os.kill(private_redis.pid, signal.SIGCONT)
        opened.close()


def test_waiting_for_nothing_ends_in_time(wakeup: tuple[socket.socket, socket.socket]) -> None:
    assert wait_readable((wakeup[0],), -1) == []


def test_a_wait_may_be_longer_than_the_kernel_counts(wakeup: tuple[socket.socket, socket.socket]) -> None:
    wakeup[1].send(b"L")

    assert wait_readable((wakeup[0],), 1e8) == [wakeup[0]]


def test_a_password_and_an_acl_user_are_used(private_redis: LocalServer, tmp_path: Path) -> None:
    with Client(private_redis.url) as admin:
        admin.store.client.execute_command("ACL", "SETUSER", "shop", "on", ">right", "~*", "&*", "+@all")
    secret = tmp_path / "password"
    secret.write_text("right\n")

    opened = open_wire(private_redis.url, username="shop", password_file=str(secret))
    assert opened.command("ACL", "WHOAMI") == b"shop"
    opened.close()
    secret.write_text("wrong\n")
    with pytest.raises(RedisUnavailable, match="invalid username-password"):
        open_wire(private_redis.url, username="shop", password_file=str(secret))
    with pytest.raises(RedisUnavailable, match="cannot be read"):
        open_wire(private_redis.url, username="shop", password_file=str(tmp_path / "none"))


# TLS


def test_tls_is_verified(tls: tuple[int, Path, Path], wakeup: tuple[socket.socket, socket.socket]) -> None:
    port, ca, _ = tls

    opened = open_wire(f"rediss://localhost:{port}", tls_ca_file=str(ca))

    assert opened.command("PING") == b"PONG"
    assert opened.move_blocking("{n}s", "{n}t", 0.01, wakeup[0], begin("{n}")) == (False, NOTHING)
    opened.command("SET", "large", b"x" * 200_000)
    assert opened.command("GET", "large") == b"x" * 200_000
    opened.close()


def test_a_certificate_of_another_authority_is_refused(tls: tuple[int, Path, Path]) -> None:
    port, _, other = tls

    with pytest.raises(RedisUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        open_wire(f"rediss://localhost:{port}", tls_ca_file=str(other))


def test_a_certificate_for_another_name_is_refused(tls: tuple[int, Path, Path]) -> None:
    port, ca, _ = tls

    with pytest.raises(RedisUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        open_wire(f"rediss://127.0.0.1:{port}", tls_ca_file=str(ca))


def test_verification_can_be_left_out_for_tests(tls: tuple[int, Path, Path]) -> None:
    opened = open_wire(f"rediss://127.0.0.1:{tls[0]}", tls_verify=False)

    assert opened.command("PING") == b"PONG"
    opened.close()


def test_the_masters_connections_are_verified_too(tls: tuple[int, Path, Path]) -> None:
    port, ca, other = tls

    async def ask(authority: Path) -> None:
        store = AsyncStore(RedisSettings(url=f"rediss://localhost:{port}", tls_ca_file=str(authority)))
        try:
            assert await store.command("PING") == b"PONG"
            heard = asyncio.Event()
            listening = asyncio.ensure_future(store.listen("news", heard.set))
            await asyncio.wait_for(heard.wait(), 30)
            listening.cancel()
        finally:
            await store.close()

    asyncio.run(ask(ca))
    with pytest.raises(RedisUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(ask(other))
