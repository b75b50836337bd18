"""Delays between attempts."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from rqsup import Backoff


def test_the_default_doubles_from_two_seconds_to_ten_minutes() -> None:
    delays = [Backoff().delay_s(failures, 0.0) for failures in range(1, 12)]

    assert delays == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]


@hypothesis.given(
    failures=st.integers(1, 10**9), luck=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1),
    first_s=st.floats(0.001, 1e6), cap_s=st.floats(0.001, 1e6),
)  # fmt: skip
def test_a_delay_is_never_negative_nor_above_its_cap(
    failures: int, luck: float, jitter: float, first_s: float, cap_s: float
) -> None:
    backoff = Backoff(first_s=first_s, cap_s=cap_s, jitter=jitter)

    assert 0 <= backoff.delay_s(failures, luck) <= cap_s
    assert backoff.delay_s(failures, luck) >= backoff.delay_s(failures, 0.0) * (1 - jitter) * 0.999


@pytest.mark.parametrize(("luck", "delay_s"), [(0.0, 10.0), (0.5, 9.0), (0.999999, 8.0)])
def test_jitter_only_shortens(luck: float, delay_s: float) -> None:
    assert Backoff(first_s=10, jitter=0.2).delay_s(1, luck) == pytest.approx(delay_s, abs=0.001)
