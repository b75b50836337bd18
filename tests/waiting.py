"""Waiting for a fact with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

#: Pause between two looks, seconds.
LOOK_PAUSE_S = 0.005


def wait_until(predicate: Callable[[], T], timeout_s: float = 30, what: str = "the condition") -> T:
    """Look until the predicate is true, and return what it returned; fail with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = predicate()
        if seen:
            return seen
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout_s:g} s in vain for {what}; last seen: {seen!r}")
        time.sleep(LOOK_PAUSE_S)
