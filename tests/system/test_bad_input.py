"""Bad input to a running pool: one clear line, a named exit status, and the pool goes on."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rqsup import Client
from rqsup.supervisor import exits
from rqsup.supervisor.ports.control import CLIENT_LIMIT
from rqsup.supervisor.ports.protocol import REQUEST_LIMIT_BYTES
from tests.system.conftest import Start
from tests.system.daemon import Daemon
from tests.waiting import wait_until

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="changes the user")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users may look into."""
    folder = Path(tempfile.mkdtemp(prefix="rqsup-public-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def rqsup(daemon: Daemon | Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and the lines on standard error."""
    config = daemon if isinstance(daemon, Path) else daemon.config
    done = subprocess.run(
        [sys.executable, "-m", "rqsup.supervisor", *arguments, "-c", str(config)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


def config_for(folder: Path, **sections: object) -> Path:
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def as_nobody(program: str, *arguments: str) -> str:
    """What a program of another user prints. It has no package but the standard library's: those lie below /root."""
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/python3", "-c", program, *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
    )  # fmt: skip
    return done.stdout + done.stderr


def talk(path: Path, data: bytes) -> bytes:
    """All that the master answers to these bytes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(data)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    return answer


WRONG_WORDS = [
    (["scale", "0"], "0 is not in the range 1<=x<=1000"),
    (["scale", "10000"], "10000 is not in the range 1<=x<=1000"),
    (["scale", "many"], "'many' is not a valid integer range"),
    (["scale"], "Say either how many workers"),
    (["signal", "FOO"], "unknown signal 'FOO': choose one of HUP, TERM, INT, QUIT, USR1,"),
    (["signal", "KILL"], "unknown signal 'KILL'"),
    (["reload", "--wait=never"], "'never' is not one of 'ready', 'drained'"),
    (["halt"], "No such command 'halt'"),
    (["status", "--frob"], "No such option"),
]


def test_a_wrong_word_gets_one_line_and_status_2(start: Start) -> None:
    daemon = start(workers={"count": 1})

    for arguments, says in WRONG_WORDS:
        status, lines = rqsup(daemon, *arguments)

        assert (status, len(lines)) == (exits.USAGE, 1)
        assert lines[0].startswith("rqsup: error: ")
        assert says in lines[0]
    assert daemon.status()["target"] == 1


def test_a_known_signal_reaches_the_master(start: Start) -> None:
    daemon = start(workers={"count": 1})

    for ready, name in ((2, "TTIN"), (3, "sigttin")):
        assert rqsup(daemon, "signal", name) == (exits.OK, [])
        # Two of a kind at once would be one.
        wait_until(lambda ready=ready: daemon.status()["ready"] == ready, what=f"{ready} workers")  # type: ignore[misc]


def test_a_pool_that_is_not_there(tmp_path: Path) -> None:
    config = config_for(tmp_path, pool="nobody-home", control={"socket": str(tmp_path / "control.sock")})
    advice = "start it with `rqsup run -c FILE`, or pass the -c FILE that it was started with"

    for command in (["status"], ["reload"], ["stop"], ["quiet"], ["scale", "2"], ["stacks"], ["signal", "HUP"]):
        status, lines = rqsup(config, *command)

        assert status == exits.FAILURE
        assert lines == [f"rqsup: error: no master listens on {tmp_path}/control.sock: {advice}"]


def test_a_stale_socket_is_told_from_a_live_one_and_taken_over(start: Start) -> None:
    daemon = start(workers={"count": 1})
    daemon.kill()
    assert daemon.socket.exists()

    status, lines = rqsup(daemon, "status")

    assert (status, len(lines)) == (exits.FAILURE, 1)
    assert f"the master that made {daemon.socket} is gone" in lines[0]
    daemon.start()
    assert daemon.status()["ready"] == 1


def test_what_is_no_socket_at_all(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("")
    config = config_for(tmp_path, control={"socket": str(tmp_path / "control.sock")})

    for command in (["status"], ["run"]):
        status, lines = rqsup(config, *command)
        assert (status, len(lines)) == (exits.FAILURE, 1)
        assert "is no socket" in lines[0]


@needs_root
def test_another_user_may_neither_open_the_socket_nor_command_through_it(start: Start, public: Path) -> None:
    daemon = start(folder=public, workers={"count": 1})
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "

    assert "PermissionError" in as_nobody(program, str(daemon.socket))

    # Even where somebody opened the file to all, the kernel tells the master who is there.
    daemon.socket.chmod(0o666)
    # The master may close before the request is sent; what it said is there to be read all the same.
    stop = """
import contextlib
with contextlib.suppress(BrokenPipeError):
    s.sendall(b'{"v": 1, "command": "stop"}\\n')
print(s.recv(9999).decode())
"""
    answer = as_nobody(program + stop, str(daemon.socket))
    assert f"user {NOBODY} may not command this master: run the command as user 0 or root" in answer
    assert daemon.status()["state"] == "running"


@needs_root
def test_a_master_does_not_settle_where_another_user_could_replace_its_socket(
    public: Path, redis_server: object
) -> None:
    public.chmod(0o777)
    config = config_for(public, control={"socket": str(public / "control.sock")}, metrics={"port": 0})

    status, lines = rqsup(config, "run")

    assert (status, len(lines)) == (exits.FAILURE, 1)
    assert "can be written to by everybody" in lines[0]


def test_another_version_of_the_protocol_is_refused_by_number(start: Start) -> None:
    daemon = start(workers={"count": 1})

    answer = talk(daemon.socket, b'{"v": 99, "command": "stop"}\n')

    assert b"this master speaks version 1 of the control protocol, the command 99" in answer
    assert daemon.status()["state"] == "running"


GARBAGE = [
    b"\n", b"stop\n", b"\xff\xfe\x00\n", b"[]\n", b'{"v": 1}\n', b'{"v": 1, "command": 5}\n', b"[" * 60000 + b"\n",
    b'{"v": 1, "command": "scale", "arguments": {"workers": "many"}}\n', b"GET / HTTP/1.1\r\n\r\n",
    b'{"v": 1, "command": "scale", "arguments": {"workers": 1e99}}\n', b"x" * (REQUEST_LIMIT_BYTES + 10),
    b'{"v": 1, "command": "scale", "arguments": {"workers": true}}\n',
]  # fmt: skip


def test_garbage_gets_an_error_and_changes_nothing(start: Start) -> None:
    daemon = start(workers={"count": 2})

    for data in GARBAGE:
        answer = talk(daemon.socket, data)

        assert b'"ok":false' in answer, data[:80]
        assert answer.count(b"\n") == 1
    status = daemon.status()
    assert (status["state"], status["target"]) == ("running", 2)


def test_slow_clients_delay_nobody_and_are_shown_the_door(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1})
    slow = [socket.socket(socket.AF_UNIX) for _ in range(CLIENT_LIMIT - 1)]
    try:
        for number, connection in enumerate(slow):
            connection.connect(str(daemon.socket))
            connection.sendall(b'{"v": 1, "comm' if number % 2 else b"")

        # Meanwhile commands are answered, and jobs run.
        assert daemon.status()["ready"] == 1
        assert client.enqueue("probe.nap", 0).result(30)
        # And they are put out: each reads an error, or the end.
        for connection in slow:
            connection.settimeout(30)
            assert b"no complete request within" in connection.recv(65536)
    finally:
        for connection in slow:
            connection.close()


def test_a_client_that_never_reads_delays_nobody(start: Start) -> None:
    daemon = start(workers={"count": 1})
    deaf = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    try:
        for connection in deaf:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.connect(str(daemon.socket))
            connection.sendall(b'{"v": 1, "command": "status"}\n')

        for _ in range(20):
            assert daemon.status()["ready"] == 1
    finally:
        for connection in deaf:
            connection.close()
