"""Whether memory is so short that the pool should shed load: pure decisions on what the kernel reports (PSI)."""

from __future__ import annotations

import re

from rqsup.settings import PressureSettings

#: Share of the last 10 s in which at least one process waited for memory, in percent.
SOME_AVG10 = re.compile(r"^some avg10=(\d+(?:\.\d+)?) ", re.MULTILINE)


def read_percent(text: str) -> float | None:
    """`some avg10` of a pressure file's text; None when it is none.

    >>> read_percent("some avg10=4.25 avg60=0.00 avg300=0.00 total=427")
    4.25
    """
    found = SOME_AVG10.search(text)
    return float(found[1]) if found else None


def should_shed(percent: float | None, rules: PressureSettings, *, shedding: bool) -> bool:
    """True while load should be shed: from `high` on, until it is below `low`.

    Two marks, because with one the pool would swing: without load the pressure falls at once. What cannot
    be read is no pressure, else a pool would stand still for a missing file.
    """
    if not rules.high or percent is None:
        return False
    return percent >= min(rules.low, rules.high) if shedding else percent >= rules.high


def should_hold(rang_s_ago: float | None, rules: PressureSettings) -> bool:
    """True while load should be shed because a watch rang: it tells when pressure begins, and not when it ends."""
    return rules.watch and rang_s_ago is not None and rang_s_ago < rules.hold
