"""The pauses between failed starts."""

from __future__ import annotations

import pytest

from rqsup.supervisor.restart import Restart


def test_pauses_double_up_to_the_cap() -> None:
    restart = Restart(pause_s=0.5, cap_s=3.0)

    pauses = [restart.failed(0.0, 1.0, "x") for _ in range(5)]

    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_luck_spreads_a_pause_over_its_second_half() -> None:
    assert Restart(1.0, 60.0).failed(0.0, 0.0, "x") == 0.5
    assert Restart(1.0, 60.0).failed(0.0, 0.5, "x") == 0.75


def test_a_thousand_failures_do_not_overflow() -> None:
    restart = Restart(pause_s=0.5, cap_s=60.0, failures=5000)

    assert restart.failed(0.0, 1.0, "x") == 60.0


def test_the_next_start_waits_from_now_and_never_less_than_before() -> None:
    restart = Restart(pause_s=1.0, cap_s=60.0)

    restart.failed(10.0, 1.0, "first")
    assert restart.not_before == 11.0
    restart.failed(10.0, 1.0, "second")
    restart.failed(2.0, 1.0, "third")
    assert restart.not_before == 12.0
    assert (restart.failures, restart.reason) == (3, "third")


@pytest.mark.parametrize("failures", [1, 7])
def test_a_ready_worker_ends_all_pauses(failures: int) -> None:
    restart = Restart(pause_s=1.0, cap_s=60.0)
    for _ in range(failures):
        restart.failed(0.0, 0.5, "x")

    restart.succeeded()

    assert restart == Restart(pause_s=1.0, cap_s=60.0)
