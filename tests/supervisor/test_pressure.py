"""When memory is so short that load is shed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.settings import PressureSettings
from rqsup.supervisor.pressure import read_percent, should_hold, should_shed

RULES = PressureSettings(high=20, low=5)


@pytest.mark.parametrize(
    ("percent", "shedding", "sheds"),
    [(0.0, False, False), (19.9, False, False), (20.0, False, True), (5.0, True, True), (4.9, True, False)],
)
def test_load_is_shed_from_high_until_below_low(percent: float, shedding: bool, sheds: bool) -> None:
    assert should_shed(percent, RULES, shedding=shedding) is sheds


def test_what_cannot_be_read_is_no_pressure() -> None:
    assert not should_shed(None, RULES, shedding=True)


@given(st.floats(0, 100), st.booleans())
def test_without_a_setting_load_is_never_shed(percent: float, shedding: bool) -> None:
    assert not should_shed(percent, PressureSettings(), shedding=shedding)


@given(st.floats(0.01, 100), st.floats(0, 100), st.floats(0, 100))
def test_pressure_at_the_upper_mark_sheds_and_none_ends_it(high: float, low: float, percent: float) -> None:
    rules = PressureSettings(high=high, low=low)

    assert should_shed(max(high, percent), rules, shedding=False)
    if low > 0:
        assert not should_shed(0.0, rules, shedding=True)


def test_the_kernels_own_file_can_be_read() -> None:
    path = Path("/proc/pressure/memory")
    if not path.exists():
        pytest.skip("this kernel reports no pressure")
    percent = read_percent(path.read_text())

    assert percent is not None
    assert 0 <= percent <= 100


@pytest.mark.parametrize("text", ["", "some", "full avg10=1.00 avg60=0.00", "some avg10=x avg60=0"])
def test_other_texts_say_nothing(text: str) -> None:
    assert read_percent(text) is None


@pytest.mark.parametrize(
    ("rang_s_ago", "watch", "holds"),
    [(None, True, False), (0.0, True, True), (4.9, True, True), (5.0, True, False), (0.0, False, False)],
)
def test_after_a_ring_load_is_shed_for_a_while(rang_s_ago: float | None, watch: bool, holds: bool) -> None:
    assert should_hold(rang_s_ago, PressureSettings(watch=watch, hold=5.0)) is holds
