"""Resource limits in a task's declaration."""

from __future__ import annotations

from typing import Any

import pytest

from rqsup import task
from rqsup.limits import Limits, parse_limits


def test_limits_are_kept_with_the_task_and_none_is_none() -> None:
    with_limits = task(name="limits.some", limits={"data": 1 << 28, "cpu": 3})(print)
    without = task(name="limits.none")(repr)

    assert with_limits.limits == Limits(data=1 << 28, cpu=3)
    assert without.limits is None


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"memory": 1}, "unknown limit 'memory'; choose of data, cpu, nofile, fsize"),
        ({"data": 0}, "limit 'data' must be a whole number, 1 or more, not 0"),
        ({"cpu": -1}, "limit 'cpu' must be a whole number"),
        ({"cpu": 0.5}, "limit 'cpu' must be a whole number, 1 or more, not 0.5"),
        ({"fsize": True}, "limit 'fsize' must be a whole number"),
        ({"fsize": "1M"}, "limit 'fsize' must be a whole number, 1 or more, not '1M'"),
        ({"data": 2**63}, "limit 'data' must be a whole number"),
        ({"nofile": 5}, "limit 'nofile' must be a whole number, 32 or more, not 5"),
    ],
)
def test_a_bad_limit_is_refused_at_the_declaration_by_name(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"task 'limits\.bad': ") as refused:
        task(name="limits.bad", limits=limits)(print)

    assert words in str(refused.value)


def test_all_limits_can_be_set() -> None:
    assert parse_limits({"data": 1, "cpu": 2, "nofile": 33, "fsize": 4}) == Limits(1, 2, 33, 4)
