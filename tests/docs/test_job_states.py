"""docs/job-states.md: the diagram is the code's."""

from __future__ import annotations

import re
from pathlib import Path

from rqsup.job import TRANSITIONS, JobState

PAGE = (Path(__file__).parents[2] / "docs" / "job-states.md").read_text()


def test_the_arrows_are_the_transitions_of_the_code() -> None:
    drawn = re.findall(r"^ +(\[\*\]|\w+) --> (\w+): (.+)$", PAGE, re.MULTILINE)

    assert {
        (None if start == "[*]" else JobState(start), JobState(end)): label for start, end, label in drawn
    } == TRANSITIONS
    assert len(drawn) == len(TRANSITIONS)


def test_every_state_has_a_row_that_says_its_place() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(JobState)
