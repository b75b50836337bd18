"""The worker's end of its output pipe: marks once per job that prints, and nothing for one that does not."""

from __future__ import annotations

import fcntl
import io
import os
import threading
from collections.abc import Iterator

import pytest

from rqsup.workers.output import JobStream, Voice, lost_mark, mark_of

MARK = mark_of("s")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe; reading does not wait."""
    mine, its = os.pipe()
    os.set_blocking(mine, False)
    yield mine, its
    os.close(mine)
    os.close(its)


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def text(fd: int, voice: Voice) -> io.TextIOWrapper:
    return io.TextIOWrapper(JobStream(fd, voice), encoding="utf-8", errors="backslashreplace", write_through=True)


def test_a_job_that_prints_is_marked_once_and_its_end_too(pipe: tuple[int, int]) -> None:
    mine, its = pipe
    voice = Voice("s", fd=its)
    stream = text(its, voice)

    voice.begin("j1", "t.x")
    print("a", 1, file=stream)
    print("b", file=stream, end="")
    voice.end()

    assert read(mine) == MARK + b"j1 t.x\na 1\nb" + MARK + b"\n"


def test_a_job_that_prints_nothing_leaves_nothing(pipe: tuple[int, int]) -> None:
    mine, its = pipe
    voice = Voice("s", fd=its)
    text(its, voice)

    voice.begin("j1", "t.x")
    voice.end()

    assert read(mine) == b""


def test_a_line_goes_out_whole_and_at_once(pipe: tuple[int, int]) -> None:
    mine, its = pipe
    stream = text(its, Voice("s", fd=its))

    stream.write("half")
    assert read(mine) == b""
    stream.write(" a line\nand")
    assert read(mine) == b"half a line\nand"
    stream.write("x" * 5000)
    assert read(mine) == b"x" * 5000


def test_text_that_utf_8_cannot_hold_is_written_out(pipe: tuple[int, int]) -> None:
    mine, its = pipe

    print("\ud800", file=text(its, Voice("s", fd=its)))

    assert read(mine) == b"\\ud800\n"


def test_a_closed_descriptor_is_no_error_of_the_job() -> None:
    mine, its = os.pipe()
    voice = Voice("s", fd=its)
    stream = text(its, voice)
    os.close(mine)
    os.close(its)

    voice.begin("j1", "t.x")
    print("lost", file=stream)
    voice.end()


def test_a_full_pipe_holds_nobody_up_and_what_it_did_not_take_is_told_later(pipe: tuple[int, int]) -> None:
    mine, its = pipe
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4096)
    voice = Voice("s", fd=its)
    stream = text(its, voice)

    voice.begin("j1", "t.x")
    for number in range(1000):
        print(f"{number:099}", file=stream)
    voice.end()
    taken = b""
    while data := read(mine):
        taken += data
    voice.begin("j2", "t.x")
    print("again", file=stream)
    lines = sum(len(line) == 99 for line in taken.split(b"\n"))
    assert 0 < lines < 1000
    assert read(mine) == lost_mark("s", 1000 - lines) + MARK + b"j2 t.x\nagain\n"
    voice.end()
    assert read(mine) == MARK + b"\n"


def test_a_long_text_that_went_in_half_gets_its_end(pipe: tuple[int, int]) -> None:
    mine, its = pipe
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4096)
    voice = Voice("s", fd=its)
    stream = text(its, voice)

    print("x" * 100_000, file=stream)
    taken = read(mine)
    print("next", file=stream)

    assert taken == b"x" * 4096
    assert read(mine) == b"\n" + lost_mark("s", 1) + b"next\n"


def test_where_a_job_sent_its_descriptor_nothing_is_lost(pipe: tuple[int, int]) -> None:
    mine, its = pipe
    voice = Voice("s", fd=its)
    stream = text(its, voice)
    other_mine, other = os.pipe()
    kept = os.dup(its)
    os.dup2(other, its)
    reader = threading.Thread(target=lambda: taken.append(drain(other_mine)))
    taken: list[bytes] = []
    reader.start()

    print("x" * 300_000, file=stream)

    os.dup2(kept, its)
    os.close(kept)
    os.close(other)
    reader.join()
    os.close(other_mine)
    assert taken == [b"x" * 300_000 + b"\n"]
    assert read(mine) == b""


def drain(fd: int) -> bytes:
    """All that comes, until the other end is closed."""
    data = b""
    while piece := os.read(fd, 65536):
        data += piece
    return data
