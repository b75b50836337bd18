"""The signals of the master: one table, also in the manual."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from rqsup.supervisor.signals import SIGNALS, install

MANUAL = Path(__file__).parents[2] / "docs" / "signals.md"


def test_each_signal_reaches_the_loop() -> None:
    seen: set[signal.Signals] = set()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        all_seen = asyncio.Event()

        def see(number: signal.Signals) -> None:
            seen.add(number)
            if seen == set(SIGNALS):
                all_seen.set()

        install(loop, see)
        try:
            for number in SIGNALS:
                os.kill(os.getpid(), number)
            await asyncio.wait_for(all_seen.wait(), 10)
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    asyncio.run(main())


@pytest.mark.skipif(not MANUAL.exists(), reason="docs/signals.md is not written yet")
def test_the_manual_has_the_same_table() -> None:
    master = MANUAL.read_text().partition("## Zygote and workers")[0]
    rows = re.findall(r"^\|\s*`?(?:SIG)?([A-Z0-9]+)`?\s*\|\s*([^|]+?)\s*\|", master, re.MULTILINE)

    documented = {f"SIG{name}": meaning for name, meaning in rows}

    for number, meaning in SIGNALS.items():
        assert documented.get(number.name) == meaning
