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
    seen: list[signal.Signals] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        install(loop, seen.append)
        try:
            for number in SIGNALS:
                os.kill(os.getpid(), number)
            async with asyncio.timeout(10):
                while len(seen) < len(SIGNALS):
                    await asyncio.sleep(0.005)
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    asyncio.run(main())

    assert set(seen) == set(SIGNALS)


@pytest.mark.skipif(not MANUAL.exists(), reason="docs/signals.md is not written yet")
def test_the_manual_has_the_same_table() -> None:
    rows = re.findall(r"^\|\s*`?(?:SIG)?([A-Z0-9]+)`?\s*\|\s*([^|]+?)\s*\|", MANUAL.read_text(), re.MULTILINE)

    documented = {f"SIG{name}": meaning for name, meaning in rows}

    for number, meaning in SIGNALS.items():
        assert documented.get(number.name) == meaning
