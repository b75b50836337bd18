from __future__ import annotations

import re
import signal
from pathlib import Path

from rqsup.supervisor.signals import SIGNALS
from rqsup.workers.boot import IGNORED

PAGE = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()
MASTER, CHILDREN = PAGE.split("## Zygote and workers")


def rows(section: str) -> list[list[str]]:
    """Cells of each row of the section's table."""
    return [[cell.strip() for cell in row.split("|")] for row in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)]


def test_the_page_shows_every_signal_of_the_master_with_its_meaning() -> None:
    shown = {name.strip("`"): meaning for name, meaning in rows(MASTER)}

    assert shown.pop("KILL")
    assert shown == {number.name.removeprefix("SIG"): meaning for number, meaning in SIGNALS.items()}


def test_the_page_shows_every_signal_that_zygote_and_workers_ignore() -> None:
    (names,) = [names for names, meaning in rows(CHILDREN) if meaning == "ignored"]

    assert {signal.Signals[f"SIG{name}"] for name in re.findall(r"`(\w+)`", names)} == set(IGNORED)
