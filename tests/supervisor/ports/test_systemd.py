from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqsup.supervisor.ports.systemd import Notifier


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0rqsup-test-{os.getpid()}-{tmp_path.name}")
        listener.settimeout(5)
        yield listener


def address(listener: socket.socket) -> str:
    name: bytes = listener.getsockname()
    return "@" + name[1:].decode()


def received(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


def silent(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.recv(4096)
    except BlockingIOError:
        return True
    return False


def test_says_nothing_when_systemd_did_not_ask() -> None:
    notifier = Notifier.from_environment({})

    notifier.ready("4/4 ready")
    notifier.watchdog()

    assert notifier.watchdog_interval_s is None


def test_every_message_is_one_datagram(listener: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address(listener)})

    notifier.ready("4/4 ready")
    assert received(listener) == ["READY=1", "STATUS=4/4 ready"]
    notifier.stopping("draining 2 jobs")
    assert received(listener) == ["STOPPING=1", "STATUS=draining 2 jobs"]
    notifier.extend_timeout(2.5)
    assert received(listener) == ["EXTEND_TIMEOUT_USEC=2500000"]
    notifier.watchdog()
    assert received(listener) == ["WATCHDOG=1"]


def test_a_socket_in_the_file_system_is_reached_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "n"))

        Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "n")}).watchdog()

        assert received(listener) == ["WATCHDOG=1"]


def test_reloading_carries_its_time_in_the_same_datagram(listener: socket.socket) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": address(listener)}).reloading()

    first, second = received(listener)

    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(microseconds) > 0


def test_a_status_is_sent_only_when_it_changed(listener: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address(listener)})
    notifier.ready("4/4 ready")
    received(listener)

    notifier.status("4/4 ready")
    notifier.status("3/4 ready")
    notifier.status("3/4 ready")

    assert received(listener) == ["STATUS=3/4 ready"]
    assert silent(listener)


def test_a_line_break_in_a_status_starts_no_field(listener: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address(listener)})

    notifier.status("reload failed:\nREADY=1 " + "x" * 1000)

    (line,) = received(listener)
    assert line.startswith("STATUS=reload failed: READY=1 xxx")
    assert len(line) < 600


def test_children_inherit_nothing_of_it(listener: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": address(listener), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1", "PATH": "/bin"}

    Notifier.from_environment(environ)

    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("usec", "pid", "interval_s"),
    [
        ("30000000", "", 10.0),
        ("30000000", "own", 10.0),
        ("30000000", "1", None),
        ("0", "", None),
        ("", "", None),
        ("soon", "", None),
    ],
)
def test_the_watchdog_is_fed_at_a_third_of_its_time(usec: str, pid: str, interval_s: float | None) -> None:
    asked = {"NOTIFY_SOCKET": "@any", "WATCHDOG_USEC": usec, "WATCHDOG_PID": str(os.getpid()) if pid == "own" else pid}
    notifier = Notifier.from_environment(asked)

    assert notifier.watchdog_interval_s == interval_s


def test_a_missing_socket_is_logged_once_and_stops_nothing(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "gone")})

    with caplog.at_level(logging.WARNING):
        notifier.ready("a")
        notifier.watchdog()

    assert [record.message for record in caplog.records if "READY=1" in record.message]
    assert len(caplog.records) == 1


def test_a_full_socket_does_not_block(listener: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address(listener)})

    for _ in range(5000):  # the kernel queues a few hundred datagrams at most
        notifier.watchdog()

    assert "further such faults are not logged" in caplog.text


def test_a_socket_of_another_kind_is_refused_in_words(caplog: pytest.LogCaptureFixture) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}).ready("a")

    assert "vsock:2:1234 is no Unix socket" in caplog.text


def test_after_close_messages_go_nowhere(listener: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address(listener)})

    notifier.close()
    notifier.close()
    notifier.watchdog()

    assert silent(listener)
