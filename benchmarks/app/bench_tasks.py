"""The application that the benchmarks run: tasks that mark what ran (`benchmarks.marks`), and do little else."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.marks import Marks
from rqsup import task

marks = Marks(os.environ["BENCH_MARKS"])


@task(name="bench.noop")
def noop(payload: dict[str, Any]) -> None:
    """Do nothing."""
    marks.start(payload["user_id"])


@task(name="bench.sleep")
def sleep(payload: dict[str, Any], seconds: float) -> None:
    """Wait, as a job that asks another service."""
    marks.start(payload["user_id"])
    time.sleep(seconds)
    marks.done(payload["user_id"])
