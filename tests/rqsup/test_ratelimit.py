"""The token bucket never lets more through than it promises, in any window of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.ratelimit import TokenBucket


class Clock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.1, 10_000),
    burst=st.integers(1, 500),
    steps=st.lists(st.tuples(st.floats(-1, 20), st.integers(0, 1000)), max_size=30),
)
def test_no_window_of_any_length_lets_through_more_than_burst_and_rate(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock=clock)
    taken: list[tuple[float, int]] = []
    elapsed = 0.0

    for seconds, most in steps:
        clock.now += seconds  # a step below 0: even a clock that goes back gives nothing away
        elapsed += max(0.0, seconds)
        taken.append((elapsed, bucket.take(most)))

    for start, (begun, _) in enumerate(taken):
        for end in range(start, len(taken)):
            allowed = burst + rate * (taken[end][0] - begun)
            assert sum(count for _, count in taken[start : end + 1]) <= allowed + 1e-6


@given(rate=st.floats(0.1, 10_000), burst=st.integers(1, 500), most=st.integers(1, 1000))
def test_after_the_pause_it_asked_for_there_is_a_token(rate: float, burst: int, most: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock=clock)
    bucket.take(most)

    clock.now += bucket.pause_s()

    assert bucket.take(1) == 1


def test_over_time_the_rate_is_reached() -> None:
    clock = Clock()
    bucket = TokenBucket(1000, 50, clock=clock)
    began, total = clock.now, 0

    while total < 10_000:
        total += bucket.take(200)
        clock.now += bucket.pause_s()

    assert 9.8 < clock.now - began < 10.1


def test_a_slow_rate_gives_one_at_a_time() -> None:
    clock = Clock()
    bucket = TokenBucket(2, 1, clock=clock)

    assert (bucket.take(5), bucket.take(5)) == (1, 0)
    assert bucket.pause_s() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_bucket_that_would_never_give_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="needs a rate above 0 and a burst of 1 or more"):
        TokenBucket(rate, burst)
