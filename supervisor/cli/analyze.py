"""What systemd itself says of unit files that are not installed yet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rqsup.errors import InstallRefused
from rqsup.supervisor.cli.units import UNITS, UnitFile

#: Seconds for one look of systemd-analyze.
TIMEOUT_S = 60.0


def version() -> int:
    """Number of this machine's systemd.

    Raises:
        InstallRefused: there is none.
    """
    if not shutil.which("systemd-analyze"):
        raise InstallRefused("there is no systemd-analyze here: install systemd, or run `rqsup run` by other means")
    return int(_run(["systemd-analyze", "--version"]).split()[1])


def judge(units: Sequence[UnitFile], pool: str) -> tuple[str, list[str], float | None]:
    """What systemd remarks on the units, what it remarks on others meanwhile, and the exposure of the service.

    Args:
        units: the files, which are laid out in a folder that systemd looks into first.
        pool: whose instance is judged.
    """
    with tempfile.TemporaryDirectory(prefix="rqsup-units-") as folder:
        for unit in units:
            # Its own place, without the root: `etc/systemd/system` is what the folder stands for.
            place = Path(folder, str(unit.path).partition(f"{UNITS}/")[2])
            if place != Path(folder):
                place.parent.mkdir(exist_ok=True)
                place.write_text(unit.text, encoding="utf-8")
        path = {"SYSTEMD_UNIT_PATH": f"{folder}:"}
        # It exits with 0 also when it has remarks.
        lines = _run(["systemd-analyze", "verify", f"rqsup@{pool}.service", "rqsup.target"], path).splitlines()
        report = _run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"rqsup@{pool}.service"], path)
    ours = [line.replace(f"{folder}/", "") for line in lines if "rqsup" in line]
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    return "\n".join(ours), [line for line in lines if "rqsup" not in line], float(found[1]) if found else None


def reload_manager() -> str:
    """Have the running systemd read the new files; returns why it did not, or nothing."""
    if not Path("/run/systemd/system").is_dir():
        return "systemd does not run here, so it was not told of the new files"
    return _run(["systemctl", "daemon-reload"]).strip()


def _run(command: list[str], environ: dict[str, str] | None = None) -> str:
    # In English, whatever the operator speaks: it is searched.
    environ = os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_EMOJI": "0"} | (environ or {})
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environ, stdin=subprocess.DEVNULL
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InstallRefused(f"`{' '.join(command)}` did not answer within {TIMEOUT_S:g} s: try it by hand") from None
    return done.stdout + done.stderr
