"""Reaching Redis: tries, passwords, and servers that must not be used."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client, errors
from rqsup.settings import RedisSettings
from rqsup.store.connection import await_server, connect
from rqsup.store.reach import check_server, parse_version, persistence_warning
from rqsup.store.server import LocalServer


def test_a_server_that_is_away_is_tried_again_with_growing_pauses_each_told() -> None:
    settings = RedisSettings(url="unix:///nowhere/redis.sock", connect_tries=6)
    told: list[str] = []
    pauses: list[float] = []

    with pytest.raises(errors.RedisUnavailable, match="after 6 tries"):
        await_server(connect(settings), settings, told.append, pauses.append)

    assert pauses == [1, 2, 4, 8, 16]
    assert len(told) == 5
    assert "try 1 of 6, next in 1 s" in told[0]


def test_the_pause_never_exceeds_its_cap() -> None:
    settings = RedisSettings(url="unix:///nowhere/redis.sock", connect_tries=8)
    pauses: list[float] = []

    with pytest.raises(errors.RedisUnavailable):
        await_server(connect(settings), settings, lambda _: None, pauses.append)

    assert pauses[-2:] == [30, 30]


def test_a_server_that_comes_up_meanwhile_is_taken(private_redis: LocalServer) -> None:
    settings = RedisSettings(url=private_redis.url, connect_tries=3)
    private_redis.kill()

    version = await_server(connect(settings), settings, lambda _: None, lambda _: private_redis.start())

    assert version >= (6, 2)


def test_a_wrong_password_is_told_at_once_without_the_password(private_redis: LocalServer) -> None:
    Client(private_redis.url).store.client.config_set("requirepass", "right")
    settings = RedisSettings(url=private_redis.url.replace("unix://", "unix://:wrong@"))

    with pytest.raises(errors.RedisUnavailable, match="refuses the login") as caught:
        await_server(connect(settings), settings, lambda _: None, lambda _: pytest.fail("no second try"))

    assert "wrong@" not in str(caught.value)


def test_a_database_that_the_server_does_not_have_is_told(private_redis: LocalServer) -> None:
    settings = RedisSettings(url=f"{private_redis.url}?db=4711", connect_tries=1)

    with pytest.raises(errors.RedisUnavailable, match="DB index is out of range"):
        await_server(connect(settings), settings, lambda _: None)


def test_a_server_that_is_no_redis_is_told(tmp_path: Path) -> None:
    settings = RedisSettings(url=f"unix://{tmp_path}/web.sock", connect_tries=1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/web.sock")
        listener.listen()
        threading.Thread(target=lambda: listener.accept()[0].sendall(b"HTTP/1.1 400\r\n\r\n"), daemon=True).start()

        with pytest.raises(errors.RedisUnavailable, match="after 1 tries"):
            await_server(connect(settings), settings, lambda _: None)


def test_a_password_comes_from_a_file(private_redis: LocalServer, tmp_path: Path) -> None:
    Client(private_redis.url).store.client.config_set("requirepass", "right")
    (tmp_path / "password").write_text("right\n")

    settings = RedisSettings(url=private_redis.url, password_file=str(tmp_path / "password"))

    assert connect(settings).ping()
    with pytest.raises(errors.RedisUnavailable, match="cannot be read"):
        connect(RedisSettings(password_file=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"redis_version": "6.0.16"}, "too old"),
        ({"redis_version": "7.0.15", "maxmemory_policy": "allkeys-lru"}, "evicts keys"),
    ],
)
def test_a_server_that_would_lose_jobs_is_refused(info: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ServerUnfit, match=words):
        check_server(info)


def test_versions_are_read() -> None:
    assert [parse_version(text) for text in ("7.0.15", "9.1", "8")] == [(7, 0), (9, 1), (8, 0)]
    assert check_server({"redis_version": "6.2.0", "maxmemory_policy": "noeviction"}) == (6, 2)


def test_a_server_without_an_append_only_file_is_warned_about() -> None:
    assert persistence_warning({"aof_enabled": 1}) is None
    assert "appendonly yes" in (persistence_warning({"aof_enabled": 0}) or "")
