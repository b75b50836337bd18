"""A black box on both ends: this process as the master, a child as the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from rqsup.supervisor.blackbox import BlackBox
from rqsup.workers.blackbox import BOX_BYTES, STACK_CHARS, shorten
from tests.waiting import wait_until

WORKER = """
import ctypes, sys, threading, time
from rqsup.workers import blackbox
blackbox.install(int(sys.argv[1]))
def asleep(): threading.Event().wait()
def hang_in_c(): sum(range(10**12))
def segfault(): ctypes.string_at(0)
def nap():
    while True: time.sleep(0.01)
threading.Thread(target=asleep, daemon=True).start()
print("ready", flush=True)
globals()[sys.argv[2]]()
"""


class Watched:
    """A process with a black box."""

    def __init__(self, what: str) -> None:
        self.box = BlackBox()
        os.set_inheritable(self.box.descriptor, True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(self.box.descriptor), what],
            stdout=subprocess.PIPE, pass_fds=(self.box.descriptor,),
        )  # fmt: skip
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"
        self.pidfd = os.pidfd_open(self.process.pid)

    def ask(self) -> str:
        return asyncio.run(self.box.ask(self.pidfd))

    def until_in(self, function: str) -> None:
        """Until both threads are where they will stay."""
        wait_until(lambda: f"in {function}" in (text := self.ask()) and "in asleep" in text, what=function)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.pidfd)
        self.box.close()


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    process = Watched(request.param)
    yield process
    process.end()


@pytest.mark.parametrize(("watched", "place"), [("hang_in_c", "in hang_in_c"), ("nap", "in nap")], indirect=["watched"])
def test_a_worker_tells_the_stacks_of_all_threads_and_goes_on(watched: Watched, place: str) -> None:
    watched.until_in(place.removeprefix("in "))

    first, second = watched.ask(), watched.ask()

    for text in (first, second):
        assert place in text
        assert "in asleep" in text
    assert watched.process.poll() is None


@pytest.mark.parametrize("watched", ["nap"], indirect=True)
def test_two_who_ask_at_once_both_get_a_whole_answer(watched: Watched) -> None:
    watched.until_in("nap")

    async def both() -> list[str]:
        return await asyncio.gather(*(watched.box.ask(watched.pidfd) for _ in range(2)))

    answers = asyncio.run(both())

    assert all(text.count("in nap") == 1 and "in asleep" in text for text in answers)


@pytest.mark.parametrize("watched", ["segfault"], indirect=True)
def test_a_process_that_dies_in_c_code_leaves_its_stack(watched: Watched) -> None:
    assert watched.process.wait(10) == -signal.SIGSEGV

    words = watched.box.last_words()

    assert words.startswith("Fatal Python error: Segmentation fault")
    assert "in segfault" in words


@pytest.mark.parametrize("watched", ["nap"], indirect=True)
def test_a_stopped_worker_is_given_200_ms_and_not_waited_for_after_that(watched: Watched) -> None:
    os.kill(watched.process.pid, signal.SIGSTOP)
    began = time.monotonic()

    text = watched.ask()

    assert text == ""
    # It stays stopped: that we are here is the fact.
    assert time.monotonic() - began > 0.15


@pytest.mark.parametrize("watched", ["nap"], indirect=True)
def test_a_box_is_full_at_its_size_and_blocks_nobody(watched: Watched) -> None:
    watched.until_in("nap")
    for _ in range(2 * BOX_BYTES // 200):
        os.kill(watched.process.pid, signal.SIGUSR2)
    filler = os.write(watched.box.descriptor, b"x" * 100)

    assert filler == 100
    assert os.fstat(watched.box.descriptor).st_size == BOX_BYTES
    assert len(watched.box.read()) <= STACK_CHARS + 10
    assert "in nap" in watched.ask()


@pytest.mark.parametrize("watched", ["nap"], indirect=True)
def test_a_dead_worker_or_a_closed_box_answers_nothing(watched: Watched) -> None:
    watched.process.kill()
    watched.process.wait()
    assert watched.ask() == ""

    watched.box.close()
    watched.box.close()
    assert (watched.box.read(), watched.box.last_words()) == ("", "")


def test_both_ends_of_a_long_text_are_kept() -> None:
    text = "".join(f"{number}\n" for number in range(10_000))

    short = shorten(text, 100)

    assert short.startswith("0\n1\n")
    assert short.endswith("9998\n9999\n")
    assert len(short) < 120
