"""The program on disk: which one it is, and what its check says."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rqsup.errors import UpgradeFailed
from rqsup.supervisor.program import Program, check, on_disk
from tests.system.daemon import command_line, is_alive
from tests.waiting import wait_until


@pytest.fixture
def document() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    yield descriptor
    os.close(descriptor)


def script(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / "program"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def run_check(program: Program, document: int, timeout_s: float = 30) -> str:
    own: set[int] = set()
    try:
        return asyncio.run(check(program, document, timeout_s, own=own))
    finally:
        assert own == set()
        assert not [child for child in psutil.Process().children() if "--check-estate" in command_line(child.pid)]


def test_a_module_runs_with_the_same_interpreter() -> None:
    command = ["python3", "-X", "dev", "-m", "rqsup.supervisor", "run"]

    assert on_disk("/venv/bin/python", command) == Program("/venv/bin/python", ("/venv/bin/python", *command[1:]))


def test_a_script_runs_with_the_interpreter_that_it_names_now(tmp_path: Path) -> None:
    path = script(tmp_path, "#!/new/venv/bin/python\n")

    assert on_disk("/old/venv/bin/python", ["python", path, "run"]) == Program(path, (path, "run"))


@pytest.mark.parametrize(("text", "mode"), [("print(1)\n", 0o755), ("#!/bin/sh\n", 0o644)])
def test_a_script_that_cannot_run_by_itself_has_the_same_interpreter(tmp_path: Path, text: str, mode: int) -> None:
    path = script(tmp_path, text, mode)

    assert on_disk("/venv/bin/python", ["python", path]).path == "/venv/bin/python"


def test_a_good_check_says_the_version_and_sees_the_document(tmp_path: Path, document: int) -> None:
    os.write(document, b"state")
    path = script(
        tmp_path, '#!/bin/sh\necho a warning >&2\n[ "$(cat /proc/self/fd/$2)" = state ] && echo rqsup 1.2.3\n'
    )

    assert run_check(Program(path, (path,)), document) == "1.2.3"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\necho one >&2; echo the cause >&2; exit 3\n", "status 3: the cause\none\nthe cause$"),
        ("#!/bin/sh\nkill -SEGV $$\n", "signal 11: it said nothing"),
        ("#!/bin/sh\nexit 0\n", "does not say that it could"),
        ("#!/bin/sh\necho something else\n", "does not say that it could take over, nothing changed: something else"),
        ("#!/no/such/interpreter\n", "cannot be started"),
    ],
)
def test_a_check_that_fails_says_how(tmp_path: Path, document: int, text: str, reason: str) -> None:
    path = script(tmp_path, text)

    with pytest.raises(UpgradeFailed, match=reason):
        run_check(Program(path, (path,)), document)


def test_a_check_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, document: int) -> None:
    pids = tmp_path / "pids"
    path = script(tmp_path, f"#!/bin/sh\necho thinking\nsleep 600 & echo $! > {pids}\nwait\n")
    began = time.monotonic()

    with pytest.raises(UpgradeFailed, match=r"more than 1 s .*check_timeout.*\nthinking"):
        run_check(Program(path, (path,)), document, timeout_s=1)

    assert time.monotonic() - began < 30
    wait_until(lambda: not is_alive(int(pids.read_text())), what="the end of what the check had started")


def test_a_check_may_say_more_than_can_be_kept(tmp_path: Path, document: int) -> None:
    path = script(tmp_path, "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x >&2\necho the end >&2\nexit 1\n")

    with pytest.raises(UpgradeFailed, match="status 1"):
        run_check(Program(path, (path,)), document)
