"""Fixtures for the demo's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder whose path is short enough for the address of a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="rqsup-t-"))
    yield folder
    shutil.rmtree(folder)
