from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from rqsup.errors import MasterRefused, MasterUnreachable
from rqsup.supervisor.ports import dial, protocol
from rqsup.supervisor.ports.dial import request
from tests.supervisor.ports.other_user import as_nobody, needs_root
from tests.supervisor.ports.served import Served


@needs_root
def test_a_foreign_socket_names_its_owner(served: Served) -> None:
    with pytest.raises(MasterUnreachable, match=r"user 65534 may not open .*: run the command as root$"):
        as_nobody(lambda: request(served.path, "status"))


def test_no_socket_says_how_to_start(folder: Path) -> None:
    with pytest.raises(MasterUnreachable, match=r"no master listens on .*/absent: start it with `rqsup run -c FILE`"):
        request(folder / "absent", "status")


def test_a_stale_socket_says_that_the_master_is_gone(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "s"))

    with pytest.raises(MasterUnreachable, match=r"the master that made .* is gone: start it"):
        request(folder / "s", "status")


def test_a_path_that_is_no_socket_is_named(folder: Path) -> None:
    (folder / "file").touch()

    with pytest.raises(MasterUnreachable, match="is no socket"):
        request(folder / "file", "status")
    with pytest.raises(MasterUnreachable, match=r"cannot be opened \(AF_UNIX path too long\)"):
        request(folder / ("x" * 200), "status")


def test_a_master_that_hangs_is_named_after_the_deadline(served: Served) -> None:
    # This command is never answered: that the line is passed is the fact.
    with pytest.raises(MasterUnreachable, match=r"did not answer within 0\.2 s: it hangs or is stopped"):
        request(served.path, "hang", timeout_s=0.2)


def test_a_request_beyond_the_limit_is_not_sent(served: Served) -> None:
    with pytest.raises(MasterUnreachable, match="more than 65536 bytes"):
        request(served.path, "status", {"x": "y" * 70_000})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "ended before it had answered 'status'"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the control protocol"),
        (b'{"progress": "a"}\n', "ended before it had answered 'status'"),
        (b'{"ok": false}\n', "gave no reason"),
    ],
)
def test_a_server_of_another_kind_is_told_apart(folder: Path, said: bytes, told: str) -> None:
    with scripted_server(folder / "s", said), pytest.raises((MasterUnreachable, MasterRefused), match=told):
        request(folder / "s", "status")


def test_a_line_without_end_is_not_read_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ANSWER_LIMIT_BYTES", 100_000)

    with scripted_server(folder / "s", b"x" * 150_000), pytest.raises(MasterUnreachable, match="a line without end"):
        request(folder / "s", "status")


def test_the_pid_of_the_master_is_known_from_the_kernel(served: Served) -> None:
    assert dial.master_pid(served.path) == os.getpid()


class scripted_server:  # noqa: N801 - used like a function
    """Takes one client, reads its line and says what it was told to."""

    def __init__(self, path: Path, said: bytes) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._said = said
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.recv(4096)
            client.sendall(self._said)
