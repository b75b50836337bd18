"""A piece of work in a process of its own: its answer, its death, and nothing left of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rqsup.workers.isolation.fork import Call, Ending, Observer, run_forked
from tests.system.daemon import is_alive
from tests.waiting import wait_until


def run(work: Callable[[int], Any], *, limit: int = 1_000_000, seconds: float = 20, **more: Any) -> Ending:
    return run_forked(Call(work, limit, time.monotonic() + seconds, "too late", **more))


def close_and_wait(pipe: int) -> None:
    os.close(pipe)
    time.sleep(60)


def test_an_answer_comes_whole_however_long_it_is() -> None:
    assert run(lambda _pipe: b"x" * 1_000_000).answer == b"x" * 1_000_000
    assert run(lambda _pipe: b"").answer == b""


def test_the_process_leads_a_group_of_its_own_and_is_told_from_start_to_end() -> None:
    seen: list[int] = []

    class Witness(Observer):
        def started(self, pid: int) -> None:
            seen.append(pid)

    ending = run(lambda _pipe: str((os.getpid(), os.getpgrp())).encode(), observer=Witness())

    assert ending.answer == str((ending.pid, ending.pid)).encode()
    assert seen == [ending.pid, 0]


@pytest.mark.parametrize(
    ("work", "cause"),
    [
        (lambda _pipe: os._exit(3), "the process exited with status 3 in the middle of the job"),
        (lambda _pipe: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (close_and_wait, "too late; killed by its worker"),
        (lambda _pipe: time.sleep(60), "too late; killed by its worker"),
        (lambda _pipe: b"x" * 101, "it sent more than the 100 bytes allowed for an answer; killed by its worker"),
        (lambda pipe: os.write(pipe, b"nonsense" * 1_000), "it sent more than the 100 bytes"),
    ],
)
def test_a_death_is_told_in_words(work: Callable[[int], Any], cause: str) -> None:
    ending = run(work, limit=100, seconds=0.3)

    assert ending.answer is None
    assert ending.cause.startswith(cause)
    assert not is_alive(ending.pid)


def test_an_answer_counts_although_the_process_does_not_end() -> None:
    def linger(pipe: int) -> bytes:
        os.write(pipe, (4).to_bytes(8, "little") + b"done")
        time.sleep(60)
        return b""

    ending = run(linger)

    assert ending.answer == b"done"
    assert not is_alive(ending.pid)


def test_what_escaped_to_other_sessions_ends_too(tmp_path: Path) -> None:
    def escape(_pipe: int) -> bytes:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                (tmp_path / "pid").write_text(str(os.getpid()))
                time.sleep(600)
            os._exit(0)
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), what="the escaped process")
        return b"x"

    assert run(escape).answer == b"x"

    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_no_descriptor_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    run(lambda _pipe: b"x")
    run(lambda _pipe: os._exit(1))

    assert len(list(Path("/proc/self/fd").iterdir())) == before
