"""An application that builds much at its import: about 100 MB of small Python objects, as real ones do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rqsup import task

#: As many rows as take about 100 MB.
ROWS: list[dict[str, Any]] = [
    {"id": number, "name": f"name {number}", "tags": [number, number + 1]} for number in range(245_000)
]


@task(name="bulky.hold")
def hold(gate: str) -> int:
    """Look at some rows, and stay in the job until the file is gone."""
    found = sum(int(row["id"]) % 7 == 0 for row in ROWS[:1000])
    while Path(gate).exists():
        time.sleep(0.05)
    return found
