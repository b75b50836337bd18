from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rqsup.errors import RqsupError
from rqsup.supervisor.ports.control import ControlPort
from rqsup.supervisor.ports.dial import request
from tests.supervisor.ports.loop_thread import LoopThread
from tests.supervisor.ports.served import Served, handle


def test_modes_do_not_depend_on_the_umask(folder: Path) -> None:
    before = os.umask(0o777)
    try:
        with LoopThread() as loop:
            served = Served(loop, folder / "a" / "b" / "control.sock")
            modes = [stat.S_IMODE(p.stat().st_mode) for p in (served.path, folder / "a" / "b", folder / "a")]
            loop.run(served.port.close())
    finally:
        os.umask(before)

    assert modes == [0o660, 0o750, 0o750]


def test_closing_removes_the_socket_and_lets_the_next_master_in(served: Served) -> None:
    served.loop.run(served.port.close())
    assert not served.path.exists()

    served.loop.run(served.port.start())

    assert request(served.path, "status")["state"] == "running"


def test_a_second_master_is_refused_and_told_who_runs(served: Served) -> None:
    second = ControlPort(served.path, handle, pool="mail")

    with pytest.raises(RqsupError, match=rf"a master already runs for pool mail \(pid {os.getpid()}\)"):
        served.loop.run(second.start())

    served.loop.run(second.close())
    assert request(served.path, "status")["state"] == "running"


def test_a_listener_without_our_lock_counts_as_a_living_master(folder: Path) -> None:
    path = folder / "control.sock"
    with socket.socket(socket.AF_UNIX) as other, LoopThread() as loop:
        other.bind(str(path))
        other.listen(1)

        with pytest.raises(RqsupError, match="a master already runs for pool default on"):
            loop.run(ControlPort(path, handle).start())

    assert path.exists()


def test_a_stale_socket_is_replaced(folder: Path) -> None:
    path = folder / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with LoopThread() as loop:
        served = Served(loop, path)
        assert request(path, "status")["state"] == "running"
        loop.run(served.port.close())


def test_of_many_masters_that_start_at_once_one_wins(folder: Path) -> None:
    path = folder / "run" / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        path.parent.mkdir()
        dead.bind(str(path))
    program = (
        "import sys; from pathlib import Path; from rqsup.supervisor.ports.place import SocketPlace\n"
        "from rqsup.errors import RqsupError\n"
        "sys.stdin.readline()\n"
        "try: SocketPlace(Path(sys.argv[1]), 'p').take(); print('won', flush=True)\n"
        "except RqsupError: print('lost', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(6)
    ]

    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
    results = [racer.stdout.readline().strip() for racer in racers if racer.stdout]

    for racer in racers:
        racer.communicate("end\n", timeout=10)
    assert sorted(results) == ["lost"] * 5 + ["won"]


def test_a_file_in_the_way_is_not_removed(folder: Path) -> None:
    path = folder / "control.sock"
    path.write_text("precious")

    with LoopThread() as loop, pytest.raises(RqsupError, match="is no socket: remove it"):
        loop.run(ControlPort(path, handle).start())

    assert path.read_text() == "precious"


def test_a_folder_open_to_everybody_is_refused(folder: Path) -> None:
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)

    with LoopThread() as loop, pytest.raises(RqsupError, match=r"can be written to by everybody.*control\.socket"):
        loop.run(ControlPort(folder / "open" / "control.sock", handle).start())


@pytest.mark.parametrize("name", ["x" * 150 + ".sock", "file/control.sock"])
def test_an_impossible_path_is_refused_in_words(folder: Path, name: str) -> None:
    (folder / "file").touch()

    with LoopThread() as loop, pytest.raises(RqsupError, match=r"cannot be made .*set control\.socket"):
        loop.run(ControlPort(folder / name, handle).start())
