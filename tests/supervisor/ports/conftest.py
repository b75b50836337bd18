from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervisor.ports.loop_thread import LoopThread
from tests.supervisor.ports.served import Served


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's folder: its long path does not fit into the address of a Unix socket.
    folder = Path(tempfile.mkdtemp(prefix="rqsup-test-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    with LoopThread() as loop:
        served = Served(loop, folder / "run" / "mail" / "control.sock")
        yield served
        loop.run(served.port.close())
