"""The walls of the sandbox, each tried from inside."""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from rqsup.errors import SandboxIncomplete
from rqsup.settings import SandboxSettings
from rqsup.workers.isolation.fork import Call, run_forked
from rqsup.workers.isolation.sandbox import WALLS, Sandbox, sandbox_of, with_folder

WANTED = SandboxSettings(require=["landlock", "seccomp"], nofile=64)


def inside(deeds: Sequence[Callable[[], object]]) -> list[str]:
    """What becomes of each deed inside the walls: the name of the kernel's error, or `done`."""
    sandbox = sandbox_of(WANTED)
    sandbox.check()

    def outcome(deed: Callable[[], object]) -> str:
        try:
            deed()
        except OSError as fault:
            return errno.errorcode[fault.errno or 0]
        return "done"

    def work(pipe: int, folder: str) -> bytes:
        sandbox.enter(folder, (pipe,), None)
        return msgspec.json.encode([outcome(deed) for deed in deeds])

    ending = with_folder(
        lambda folder: run_forked(Call(lambda pipe: work(pipe, folder), 100_000, time.monotonic() + 30, "too late"))
    )
    assert ending.answer is not None, ending.cause
    return msgspec.json.decode(ending.answer, type=list[str])


def test_files_sockets_and_processes_are_refused_by_the_kernel(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")

    seen = inside([
        mine.read_text, lambda: mine.write_text("gone"), lambda: os.truncate(mine, 0), mine.unlink,
        socket.socket, os.fork, lambda: os.kill(os.getppid(), 0), lambda: mine.chmod(0o600),
    ])  # fmt: skip

    assert set(seen[:3]) == {"EACCES"}
    assert set(seen[3:]) <= {"EACCES", "EPERM"}
    assert mine.read_text() == "precious"


def test_descriptors_are_bounded_and_python_can_be_read() -> None:
    seen = inside(
        [
            Path(os.__file__).read_bytes,
            lambda: [os.open("/dev/null", os.O_RDONLY) for _ in range(100)],
            lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        ]
    )

    assert seen == ["done", "EMFILE", "done"]


def test_walls_are_not_missing_because_their_process_has_many_files_open() -> None:
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
    try:
        missing = Sandbox(WANTED).missing
    finally:
        for descriptor in opened:
            os.close(descriptor)

    assert "landlock" not in missing
    assert "seccomp" not in missing


def test_the_walls_are_tried_once_for_each_configuration() -> None:
    assert sandbox_of(WANTED) is sandbox_of(SandboxSettings(require=["landlock", "seccomp"], nofile=64))
    assert sandbox_of(SandboxSettings(nofile=65)) is not sandbox_of(WANTED)


@pytest.mark.parametrize("wall", WALLS)
def test_a_missing_wall_is_refused_where_it_is_demanded(wall: str) -> None:
    sandbox = Sandbox(SandboxSettings(require=["landlock", "seccomp", "network"]))
    sandbox.missing = {wall: "not here"}

    with pytest.raises(SandboxIncomplete, match=rf"\({wall}: not here\)"):
        sandbox.check()
    assert [(one.name, one.detail) for one in sandbox.protections() if not one.in_force] == [(wall, "not here")]


def test_a_missing_wall_is_accepted_where_it_is_not() -> None:
    sandbox = Sandbox(SandboxSettings())
    sandbox.missing = dict.fromkeys(("landlock", "seccomp", "network"), "not here")

    sandbox.check()
