"""The scoreboard lends slots, and no total ever falls."""

from __future__ import annotations

import os
from mmap import mmap

from hypothesis import given
from hypothesis import strategies as st

from rqsup.supervisor.scoreboard import COUNTERS, Scoreboard
from rqsup.workers.slot import Slot, slot_at


def test_all_slots_are_lent_once_and_then_none() -> None:
    board = Scoreboard(3)

    lent = [board.lend() for _ in range(4)]

    assert sorted(one[0] for one in lent if one) == [0, 1, 2]
    assert lent[3] is None


def test_a_slot_comes_back_clean() -> None:
    board = Scoreboard(1)
    first = board.lend()
    assert first
    index, slot = first
    slot.succeeded, slot.order = 4, 2

    board.take_back(index)
    again = board.lend()

    assert again
    assert (again[0], again[1].succeeded, again[1].order) == (index, 0, 0)
    assert board.totals()["succeeded"] == 4


def test_another_process_sees_the_same_memory() -> None:
    board = Scoreboard(2)
    lent = board.lend()
    assert lent
    theirs = slot_at(mmap(os.dup(board.descriptor), 0), lent[0])

    theirs.retried = 6

    assert lent[1].retried == 6
    assert board.totals()["retried"] == 6
    assert not os.get_inheritable(board.descriptor)


@given(
    st.lists(
        st.one_of(st.just("lend"), st.integers(0, 3), st.tuples(st.integers(0, 3), st.sampled_from(COUNTERS))),
        max_size=60,
    )
)
def test_totals_never_fall_and_count_everything(steps: list[object]) -> None:
    board = Scoreboard(4)
    lent: dict[int, Slot] = {}
    counted, before = 0, 0
    for step in steps:
        if step == "lend":
            one = board.lend()
            lent |= {one[0]: one[1]} if one else {}
        elif isinstance(step, int) and step in lent:
            del lent[step]
            board.take_back(step)
        elif isinstance(step, tuple) and step[0] in lent:
            setattr(lent[step[0]], step[1], getattr(lent[step[0]], step[1]) + 1)
            counted += 1

        total = sum(board.totals().values())
        assert total >= before
        assert total == counted
        before = total


def test_another_program_goes_on_with_slots_and_totals() -> None:
    before = Scoreboard(3)
    first, second = before.lend(), before.lend()
    assert first
    assert second
    first[1].succeeded, second[1].succeeded = 5, 7
    before.take_back(first[0])

    after = Scoreboard(9)
    after.inherit(os.dup(before.descriptor), before.folded, [second[0]])

    assert after.totals() == before.totals()
    assert len([lent for _ in range(3) if (lent := after.lend()) and lent[0] != second[0]]) == 2
    after.slot(second[0]).succeeded += 1
    # Both see the same memory.
    assert second[1].succeeded == 8
