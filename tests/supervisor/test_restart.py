"""The pauses between failed starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.supervisor.restart import Restart


def fail_again_and_again(restart: Restart, luck: float, rounds: int) -> list[float]:
    return [restart.failed(restart.not_before, luck, "x") for _ in range(rounds)]


def test_the_longest_pause_doubles_up_to_the_cap() -> None:
    assert fail_again_and_again(Restart(pause_s=0.5, cap_s=3.0), 1.0, 5) == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_the_shortest_pause_stays_the_first_one() -> None:
    assert fail_again_and_again(Restart(pause_s=0.5, cap_s=60.0), 0.0, 20) == [0.5] * 20


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 200))
def test_every_pause_is_between_the_first_and_the_cap(luck: float, rounds: int) -> None:
    pauses = fail_again_and_again(Restart(pause_s=0.5, cap_s=60.0), luck, rounds)

    assert all(0.5 - 1e-6 <= pause <= 60.0 + 1e-6 for pause in pauses)
    assert pauses[-1] == pytest.approx(max(pauses), abs=1e-6)


def test_a_thousand_failures_do_not_overflow() -> None:
    restart = Restart(pause_s=0.5, cap_s=60.0, failures=5000)

    assert restart.failed(0.0, 1.0, "x") == 60.0


def test_starts_that_fail_together_count_as_one_and_do_not_lengthen_the_pause() -> None:
    restart = Restart(pause_s=1.0, cap_s=60.0)

    pauses = [restart.failed(10.0 + number / 100, 0.5, f"worker {number}") for number in range(100)]

    assert restart.failures == 1
    assert restart.not_before == 11.5
    assert pauses[0] == 1.5
    assert restart.reason == "worker 99"


def test_a_pause_that_the_cap_cuts_short_is_the_first_one() -> None:
    assert Restart(pause_s=2.0, cap_s=2.0).failed(0.0, 1.0, "x") == 2.0


@pytest.mark.parametrize("failures", [1, 7])
def test_a_ready_worker_ends_all_pauses(failures: int) -> None:
    restart = Restart(pause_s=1.0, cap_s=60.0)
    for _ in range(failures):
        restart.failed(0.0, 0.5, "x")

    restart.succeeded()

    assert restart == Restart(pause_s=1.0, cap_s=60.0)
