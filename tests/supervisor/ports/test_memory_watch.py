"""The three things that systemd may name as a watch of memory pressure, and what cannot be one."""

from __future__ import annotations

import base64
import os
import socket
import tempfile
from pathlib import Path

import pytest

from rqsup.supervisor.ports.memory_watch import MemoryWatch


def watch_of(path: object, threshold: str = "") -> MemoryWatch:
    write = base64.b64encode(threshold.encode()).decode()
    found = MemoryWatch.from_environment({"MEMORY_PRESSURE_WATCH": str(path), "MEMORY_PRESSURE_WRITE": write})
    assert found
    return found


def test_a_fifo_rings_with_each_write(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    watch = watch_of(fifo)
    watch.arm()
    assert not watch.rang()

    for _ in range(2):
        fifo.write_text("!")
        assert watch.rang()
        assert not watch.rang()

    watch.close()
    assert not watch.rang()


def test_a_socket_gets_the_threshold_rings_and_ends() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        watch = watch_of(f"{folder}/socket", "some 1 2")
        watch.arm()
        peer, _ = listener.accept()
        assert peer.recv(100) == b"some 1 2"
        peer.send(b"!")
        assert watch.rang()
        peer.close()

        assert not watch.rang()
        assert not watch.rang()


def test_a_pressure_file_takes_the_threshold_and_is_silent_without_pressure() -> None:
    path = Path("/proc/pressure/memory")
    if not path.exists():
        pytest.skip("this kernel reports no pressure")
    # A whole window in which nothing at all could run.
    watch = watch_of(path, "full 1999999 2000000\0")

    watch.arm()

    assert not watch.rang()
    watch.close()


def test_a_threshold_that_the_kernel_does_not_take_is_an_error() -> None:
    if not Path("/proc/pressure/memory").exists():
        pytest.skip("this kernel reports no pressure")

    with pytest.raises(OSError, match="Invalid argument"):
        watch_of("/proc/pressure/memory", "nonsense").arm()


@pytest.mark.parametrize(
    ("path", "write"), [("", ""), ("/dev/null", ""), ("relative", ""), ("/proc/pressure/memory", "no base64!")]
)
def test_what_is_no_watch(path: str, write: str) -> None:
    environ = {"MEMORY_PRESSURE_WATCH": path, "MEMORY_PRESSURE_WRITE": write}

    assert MemoryWatch.from_environment(environ) is None
