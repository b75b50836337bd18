"""The unit files, without a running systemd: what `systemd-analyze` says of them, and that they fit the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rqsup.settings import Settings
from rqsup.supervisor import exits

UNITS = Path(__file__).parents[2] / "systemd"
UNIT = (UNITS / "rqsup@.service").read_text()

needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The unit files, with a program that exists on any machine: `verify` looks for it."""
    for path in UNITS.glob("rqsup*"):
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/rqsup", sys.executable))
    return tmp_path


def analyze(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@needs_analyze
def test_systemd_finds_nothing_to_remark(units: Path) -> None:
    done = analyze("verify", "./rqsup@mail.service", "./rqsup.target", cwd=units)

    # Its exit status is 0 even with remarks.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
def test_the_exposure_of_the_service_is_at_most_1_5(units: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=15", "./rqsup@.service", cwd=units)

    assert done.returncode == 0, done.stdout[-200:]


def value(key: str) -> str:
    found = re.search(rf"^{key}=(.*)$", UNIT, re.MULTILINE)
    assert found is not None, key
    return found[1]


def test_the_stop_timeout_leaves_time_for_drain_and_grace() -> None:
    workers = Settings().workers

    assert float(value("TimeoutStopSec")) >= workers.drain_timeout + workers.shutdown_grace + 10


def test_the_start_timeout_leaves_time_to_import_the_application() -> None:
    assert float(value("TimeoutStartSec")) >= 2 * Settings().workers.boot_timeout


def test_a_configuration_error_is_not_restarted() -> None:
    assert int(value("RestartPreventExitStatus")) == exits.CONFIG
