"""The private server: who may reach it, when it ends, and what survives a crash."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from rqsup.errors import RedisUnavailable
from rqsup.store import server, tether
from rqsup.store.server import LocalServer, embedded_binary, find_binary
from tests.waiting import wait_until

BINARIES = [binary for binary in (shutil.which("redis-server"), embedded_binary()) if binary]

START_AND_HANG = """
import sys, time
from pathlib import Path
from rqsup.store.server import LocalServer
print(LocalServer(Path(sys.argv[1])).start().pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(params=BINARIES, ids=lambda path: Path(path).parent.name)
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalServer]:
    """A started server, once for each binary of this machine."""
    with LocalServer(tmp_path / "redis", binary=request.param) as started:
        yield started


def test_the_socket_and_its_folder_are_closed_to_others(local: LocalServer) -> None:
    socket = local.folder / "redis.sock"

    assert socket.stat().st_mode & 0o777 == 0o600
    assert local.folder.stat().st_mode & 0o777 == 0o700


def test_it_keeps_every_key_and_listens_on_no_tcp_port(local: LocalServer) -> None:
    with redis.Redis.from_url(local.url) as client:
        answers = {name: client.config_get(name)[name] for name in ("maxmemory-policy", "port", "appendonly", "save")}

    assert answers == {"maxmemory-policy": "noeviction", "port": "0", "appendonly": "yes", "save": ""}


def test_jobs_survive_a_kill_and_a_start(local: LocalServer) -> None:
    with redis.Redis.from_url(local.url) as client:
        client.set("kept", "yes")
        first = local.pid
        local.kill()
        local.start()

        assert client.get("kept") == b"yes"
    assert local.pid != first


def test_without_aof_nothing_is_written(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "redis", aof=False) as started, redis.Redis.from_url(started.url) as client:
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_a_second_start_on_the_same_folder_is_refused(local: LocalServer) -> None:
    with pytest.raises(RedisUnavailable, match="another process already runs a Redis server in"):
        LocalServer(local.folder).start()
    with pytest.raises(RedisUnavailable, match=f"already running as pid {local.pid}"):
        local.start()

    with redis.Redis.from_url(local.url) as client:
        assert client.ping()


def test_it_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START_AND_HANG, str(tmp_path / "redis")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()

        wait_until(lambda: not _runs(child), what=f"the end of the server {child.pid}")


def test_the_tether_refuses_when_the_parent_is_another_one_already(tmp_path: Path) -> None:
    command = [sys.executable, tether.__file__, "1", shutil.which("touch") or "/bin/touch", str(tmp_path / "made")]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "the parent died before the tether was set" in ended.stderr
    assert not (tmp_path / "made").exists()


def test_stop_ends_it_in_order_and_pid_says_so(local: LocalServer) -> None:
    local.stop()

    assert "bye bye" in (local.folder / "redis.log").read_text()
    with pytest.raises(RedisUnavailable, match="is not running: call start"):
        _ = local.pid


def test_stop_kills_a_server_that_does_not_react(local: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_TIMEOUT_S", 0.05)
    frozen = psutil.Process(local.pid)
    os.kill(frozen.pid, signal.SIGSTOP)

    local.stop()

    assert not _runs(frozen)


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "broken-server"
    broken.write_text("#!/bin/sh\necho 'no memory for the moon'\nexit 3\n")
    broken.chmod(0o755)
    local = LocalServer(tmp_path / "redis", binary=str(broken))

    with pytest.raises(RedisUnavailable, match=r"status 3:\n  no memory for the moon"):
        local.start()
    with LocalServer(tmp_path / "redis") as second:  # the folder is free again
        assert second.pid


def test_a_server_that_never_answers_is_given_up_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "START_TIMEOUT_S", 0.2)
    mute = tmp_path / "mute-server"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)

    with pytest.raises(RedisUnavailable, match=r"no answer in 0\.2 s"):
        LocalServer(tmp_path / "redis", binary=str(mute)).start()

    assert not [child for child in psutil.Process().children() if "sleep" in child.name()]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RedisUnavailable, match=r"cannot use .*file/redis for a Redis server"):
        LocalServer(tmp_path / "file" / "redis").start()
    with pytest.raises(RedisUnavailable, match="too long for a Unix socket"):
        LocalServer(tmp_path / ("x" * 100)).start()


def test_path_comes_before_the_embedded_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    valkey = tmp_path / "valkey-server"
    valkey.write_text("#!/bin/sh\n")
    valkey.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_binary() == str(valkey)


def test_with_nothing_on_the_path_the_embedded_server_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(server, "embedded_binary", lambda: "/embedded/valkey-server")

    assert find_binary() == "/embedded/valkey-server"


def test_with_nothing_at_all_the_error_names_the_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(RedisUnavailable, match=r"redis\.url .*apt install redis-server.*rqsup\[embedded\]"):
        find_binary()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
