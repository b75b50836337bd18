"""A real zygote process, and a test that plays its master."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqsup.settings import RedisSettings, Settings
from rqsup.supervisor import zygote
from rqsup.supervisor.messages import (
    MESSAGE_BYTES,
    Forked,
    ForkRefused,
    ForkWorker,
    Message,
    Prepare,
    Prepared,
    PrepareFailed,
    decode,
    encode,
)
from rqsup.supervisor.scoreboard import Scoreboard
from rqsup.workers.assignment import Assignment
from rqsup.workers.channel import LOOK, READY
from rqsup.workers.slot import Order, WorkerState
from tests.waiting import wait_until

PR_SET_CHILD_SUBREAPER = 36


class Zygote:
    """The master's end of a zygote."""

    def __init__(self, folder: Path, code: str, *modules: str) -> None:
        (folder / "shop.py").write_text(code, errors="surrogateescape")
        self.board = Scoreboard(4)
        self.socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        with its:
            command = [sys.executable, "-m", "rqsup.supervisor.zygote", str(its.fileno()), str(self.board.descriptor)]
            self.process = subprocess.Popen(
                command,
                pass_fds=(its.fileno(), self.board.descriptor),
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        self.settings = Settings(app=list(modules or ("shop",)), redis=RedisSettings(url=f"unix://{folder}/no.sock"))
        self.workers: list[int] = []
        self.printed = self.errors = b""

    def prepare(self) -> Message:
        self.socket.send(encode(Prepare(self.settings, 1, os.getpid())))
        return self.receive()

    def receive(self) -> Message:
        return decode(self.socket.recv(MESSAGE_BYTES))

    def fork(self, number: int = 1) -> tuple[Message, socket.socket]:
        mine, its = socket.socketpair()
        mine.settimeout(20)
        with its:
            assignment = Assignment(number, f"h.1.{number}", number, 1, os.getpid())
            socket.send_fds(self.socket, [encode(ForkWorker(assignment))], [its.fileno()])
        message = self.receive()
        if isinstance(message, Forked):
            self.workers.append(message.pid)
        return message, mine

    def end(self) -> None:
        self.socket.close()
        self.process.kill()
        for pid in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self.printed, self.errors = self.process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for the application; this process adopts orphans meanwhile, as a master does."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield tmp_path
    prctl(PR_SET_CHILD_SUBREAPER, 0)


@contextlib.contextmanager
def running(folder: Path, code: str, *modules: str) -> Iterator[Zygote]:
    zygote = Zygote(folder, code, *modules)
    try:
        yield zygote
    finally:
        zygote.end()


GOOD = "from rqsup import task\n@task(name='b.send')\ndef b(): ...\n@task(name='a.send')\ndef a(): ...\n"


def test_a_zygote_tells_the_tasks_of_the_application(folder: Path) -> None:
    with running(folder, GOOD) as zygote:
        answer = zygote.prepare()

    assert isinstance(answer, Prepared)
    assert answer.tasks == ["a.send", "b.send"]
    assert answer.seconds > 0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("open('caf\\udce9')\n", "caf\\udce9"),
        ("raise ValueError('x' * 1_000_000)\n", "xxx"),
    ],
)
def test_a_broken_application_is_told_with_its_traceback_and_ends_the_zygote(
    folder: Path, code: str, reason: str
) -> None:
    with running(folder, code) as zygote:
        answer = zygote.prepare()

        assert isinstance(answer, PrepareFailed)
        assert reason in answer.reason
        assert zygote.process.wait(10) == 0


def test_a_worker_is_the_masters_child_and_says_that_it_is_ready(folder: Path) -> None:
    with running(folder, GOOD) as zygote:
        zygote.prepare()

        forked, channel = zygote.fork()

        assert isinstance(forked, Forked)
        assert forked.worker == "h.1.1"
        assert channel.recv(1) == READY
        assert f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{forked.pid}/status").read_text()


def test_a_worker_works_in_its_slot_and_leaves_when_told(folder: Path) -> None:
    with running(folder, GOOD) as zygote:
        zygote.prepare()
        slots = dict(zygote.board.lend() or (0, None) for _ in range(4))
        forked, channel = zygote.fork(2)
        assert isinstance(forked, Forked)
        assert channel.recv(1) == READY
        slot = slots[2]
        assert slot

        slot.order = Order.LEAVE
        channel.send(LOOK)

        assert os.waitpid(forked.pid, 0)[1] == 0
        assert slot.state == WorkerState.LEAVING


def test_a_program_that_a_worker_starts_inherits_no_descriptor(folder: Path) -> None:
    with running(folder, GOOD) as zygote:
        zygote.prepare()
        forked, channel = zygote.fork()
        assert isinstance(forked, Forked)
        assert channel.recv(1) == READY

        flags = [
            Path(f"/proc/{forked.pid}/fdinfo/{one.name}").read_text() for one in fds_of(forked.pid) if int(one.name) > 2
        ]

    assert flags
    for text in flags:
        assert int(text.split("flags:")[1].split()[0], 8) & os.O_CLOEXEC


def fds_of(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/fd").iterdir())


THREADED = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), name='metrics exporter', daemon=True).start()\n"


def test_an_application_with_a_thread_is_refused_by_the_threads_name(folder: Path) -> None:
    with running(folder, THREADED) as zygote:
        assert isinstance(zygote.prepare(), Prepared)

        answer, _ = zygote.fork()

        assert isinstance(answer, ForkRefused)
        assert "1 thread(s)" in answer.reason
        assert "metrics exporter" in answer.reason


def test_what_the_application_prints_at_import_is_printed_once(folder: Path) -> None:
    with running(folder, GOOD + "import sys; sys.stdout.write('hello from shop')") as zygote:
        zygote.prepare()
        for number in (1, 2):
            _, channel = zygote.fork(number)
            assert channel.recv(1) == READY
            channel.close()
        for pid in zygote.workers:
            os.waitpid(pid, 0)
        zygote.workers.clear()
        zygote.socket.close()
        zygote.process.wait(10)

    assert zygote.printed.count(b"hello from shop") == 1


def test_closing_the_socket_ends_the_zygote_quietly_and_not_its_workers(folder: Path) -> None:
    with running(folder, GOOD) as zygote:
        zygote.prepare()
        forked, channel = zygote.fork()
        assert isinstance(forked, Forked)
        assert channel.recv(1) == READY

        zygote.socket.close()

        assert zygote.process.wait(10) == 0
        assert os.waitpid(forked.pid, os.WNOHANG) == (0, 0)

    assert b"Traceback" not in zygote.errors


@pytest.mark.parametrize("when", ["before the order", "during the import"])
def test_a_master_that_gives_up_early_ends_the_zygote_quietly(folder: Path, when: str) -> None:
    with running(
        folder,
        "import pathlib, time\npathlib.Path('began').touch()\nwhile not pathlib.Path('go').exists(): time.sleep(0.005)\n",
    ) as zygote:
        if when == "during the import":
            zygote.socket.send(encode(Prepare(zygote.settings, 1, os.getpid())))
            wait_until((folder / "began").exists)
        zygote.socket.close()
        (folder / "go").touch()

        assert zygote.process.wait(10) in {0, 1}

    assert b"Traceback" not in zygote.errors


def test_a_killed_zygote_leaves_its_workers(folder: Path) -> None:
    with running(folder, GOOD) as zygote:
        zygote.prepare()
        forked, channel = zygote.fork()
        assert isinstance(forked, Forked)
        assert channel.recv(1) == READY

        zygote.process.kill()
        zygote.process.wait(10)

        assert os.waitpid(forked.pid, os.WNOHANG) == (0, 0)


def test_a_machine_without_room_for_processes_refuses_the_fork_and_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    before = len(fds_of(os.getpid()))

    answer = zygote._answer_fork(Assignment(1, "w", 0, 1, 1), lambda: None)

    assert isinstance(answer, ForkRefused)
    assert len(fds_of(os.getpid())) == before
