"""From the bytes of a worker's pipe to lines with their job."""

from __future__ import annotations

import random

import pytest

from rqsup.supervisor.output import CUT, Allowance, Line, Splitter
from rqsup.workers.output import lost_mark, mark_of
from rqsup.workers.slot import CurrentJob

NOW = 1000.0
SLOT = CurrentJob("in-slot", "t.slot", 1.0, 2.0, 3.0)
MARK = mark_of("secret")


def make(lines_per_s: float = 1000, line_bytes: int = 100, shared: float = 1000) -> Splitter:
    return Splitter("secret", line_bytes, Allowance(lines_per_s), Allowance(shared))


def test_lines_without_a_mark_belong_to_the_job_in_the_slot() -> None:
    splitter = make()

    assert splitter.feed(b"one\ntw", NOW, SLOT) == [Line("one", "in-slot", "t.slot")]
    assert splitter.feed(b"o\r\n\n", NOW, None) == [Line("two", "", ""), Line("", "", "")]


def test_a_mark_says_whose_the_lines_behind_it_are() -> None:
    data = b"before" + MARK + b"a t.a\nof a\nof a too" + MARK + b"\nafter\n"

    lines = make().feed(data, NOW, SLOT)

    slot, marked = ("in-slot", "t.slot"), ("a", "t.a")
    assert lines == [Line("before", *slot), Line("of a", *marked), Line("of a too", *marked), Line("after", *slot)]


def test_a_mark_with_another_secret_is_text() -> None:
    [line] = make().feed(mark_of("guessed") + b"victim t.v\n", NOW, SLOT)

    assert line.job_id == "in-slot"


@pytest.mark.parametrize("seed", range(20))
def test_it_does_not_matter_how_the_bytes_are_cut_into_reads(seed: int) -> None:
    rng = random.Random(seed)
    data = b"x" * 90 + b"\n" + MARK + b"a t.a\n" + b"y" * 250 + b"\nshort\n" + MARK + b"\nlast"
    cuts = sorted(rng.sample(range(len(data)), 8))
    splitter = make()

    lines = [
        line
        for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)
        for line in splitter.feed(data[a:b], NOW, SLOT)
    ]
    lines += splitter.end(NOW, SLOT)

    whole = make()
    assert lines == whole.feed(data, NOW, SLOT) + whole.end(NOW, SLOT)
    assert [line.text for line in lines] == ["x" * 90, "y" * 100 + CUT, "short", "last"]


@pytest.mark.parametrize("cut", range(0, 370, 7))
def test_another_splitter_goes_on_where_one_stopped(cut: int) -> None:
    data = b"x" * 90 + b"\n" + MARK + b"a t.a\n" + b"y" * 250 + b"\nshort\n" + MARK + b"\nlast"
    first, second = make(), make()

    lines = first.feed(data[:cut], NOW, SLOT)
    second.resume(first.remains())
    lines += second.feed(data[cut:], NOW, SLOT) + second.end(NOW, SLOT)

    whole = make()
    assert lines == whole.feed(data, NOW, SLOT) + whole.end(NOW, SLOT)


def test_a_line_without_an_end_is_cut_once_and_holds_no_memory() -> None:
    splitter = make()

    lines = [line for _ in range(1000) for line in splitter.feed(b"z" * 1000, NOW, SLOT)]
    lines += splitter.feed(b"\nnext\n", NOW, SLOT)

    assert [line.text for line in lines] == ["z" * 100 + CUT, "next"]


def test_lines_over_the_limit_are_counted_and_come_again_with_time() -> None:
    splitter = make(lines_per_s=10)

    first = splitter.feed(b"l\n" * 50, NOW, SLOT)
    later = splitter.feed(b"l\n" * 50, NOW + 0.55, SLOT)

    assert (len(first), len(later), splitter.dropped) == (10, 5, 85)


def test_marks_in_a_flood_are_neither_lost_nor_counted() -> None:
    splitter = make(lines_per_s=1)
    splitter.feed(b"l\nl\n" + MARK + b"a t.a\nl\nl\n", NOW, SLOT)

    assert splitter.dropped == 3
    assert splitter.feed(b"x\n", NOW + 1, SLOT) == [Line("x", "a", "t.a")]


def test_all_workers_share_one_limit() -> None:
    shared = Allowance(12)
    splitters = [Splitter("secret", 100, Allowance(10), shared) for _ in range(2)]

    passed = [len(splitter.feed(b"l\n" * 20, NOW, SLOT)) for splitter in splitters]

    assert passed == [10, 2]
    assert sum(splitter.dropped for splitter in splitters) == 28


def test_bytes_that_are_no_text_do_no_harm() -> None:
    [line] = make().feed(b"\xff\x00\x1b[2J\n", NOW, SLOT)

    assert line.text == "�\x00\x1b[2J"  # the log escapes control characters, the journal stores them


def test_lines_that_the_worker_could_not_send_are_counted_also_in_a_flood() -> None:
    splitter = make(lines_per_s=2)
    job = MARK + b"a t.a\n"

    calm = splitter.feed(lost_mark("secret", 7) + job + b"one\n", NOW, SLOT)
    splitter.feed(b"two\nthree\n" + lost_mark("secret", 20) + b"four\n" + lost_mark("secret", 300), NOW, SLOT)

    assert calm == [Line("one", "a", "t.a")]
    assert splitter.dropped == 7 + 2 + 320
    # The job's mark stands, whatever was lost behind it.
    assert splitter.feed(b"later\n", NOW + 1, SLOT) == [Line("later", "a", "t.a")]
