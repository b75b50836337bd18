"""When the master itself stood still, its workers are not to blame."""

from __future__ import annotations

import pytest

from rqsup.supervisor.stall import STALL_S, Stall


def test_a_loop_that_turns_in_time_pardons_nobody() -> None:
    stall = Stall(awake_at=0.0)

    assert [stall.woke(now, due_s=1.0) for now in (1.0, 2.0, 2.0 + 1.0 + STALL_S)] == [0, 0, 0]
    assert stall.pardon_until == 0


@pytest.mark.parametrize("stood_s", [3.5, 60.0, 36_000.0])
def test_a_pardon_lasts_as_long_as_the_stall_did(stood_s: float) -> None:
    stall = Stall(awake_at=10.0)

    late_s = stall.woke(10 + 1 + stood_s, due_s=1.0)

    assert late_s == pytest.approx(stood_s)
    assert stall.pardon_until == pytest.approx(11 + 2 * stood_s)
    assert stall.woke(12 + stood_s, due_s=1.0) == 0
