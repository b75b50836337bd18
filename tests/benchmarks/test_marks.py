"""Marks of jobs, as several processes see them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.marks import Marks

ROOT = Path(__file__).parents[2]


def test_another_process_marks_what_this_one_reads(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    marks = Marks(path, 3)
    marks.sent(1)
    code = f"from benchmarks.marks import Marks; marks = Marks({str(path)!r}); marks.start(1); marks.start(1); marks.done(1)"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

    row = marks.rows(1, first=1)[0]
    assert (row.runs, row.ends) == (2, 1)
    assert 0 < row.sent < row.first < row.last
    assert row.pid != os.getpid()
    assert (marks.ran(3), marks.ended(3), marks.ran(1)) == (1, 1, 0)


def test_clearing_forgets_all(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks", 2)
    marks.start(0)

    marks.clear()

    assert marks.ran(2) == 0
