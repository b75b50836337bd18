"""A real systemd in a box: own namespaces over a copy-on-write view of this machine; it boots in half a second.

Nothing outside changes: all that is written lands in a tmpfs that ends with the box.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Self

import psutil

from tests.waiting import wait_until

INIT = Path(__file__).parent / "sdbox-init.sh"
CHECKOUT = Path(__file__).parents[2]
#: Where Python, the packages and the checkout appear inside; a service may read there, unlike below /root or /home.
PYTHON, PACKAGES, SOURCE, VENV = "/opt/python", "/opt/rqsup/packages", "/opt/rqsup/source", "/opt/rqsup"
OLDEST_SYSTEMD = 250
TOOLS = ("systemctl", "unshare", "nsenter", "setpriv", "findmnt", "ip")


def why_not() -> str:
    """Why no box can run here; empty when one can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"needs {', '.join(missing)}"
    version = int(
        subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    )
    if version < OLDEST_SYSTEMD:
        return f"needs systemd {OLDEST_SYSTEMD}, not {version}"
    if not _cgroup_mount():
        return "needs a cgroup2 mount"
    overlay = "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w && mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt"
    tried = subprocess.run(
        ["unshare", "--mount", "--cgroup", "sh", "-c", overlay], capture_output=True, text=True, check=False
    )
    return f"needs namespaces and overlayfs: {tried.stderr.strip()}" if tried.returncode else ""


class SystemdBox:
    """A booted systemd, with rqsup installed from this checkout; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self._cgroup = Path(_cgroup_mount()) / f"sdbox-{name}"
        self._pid = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._cgroup.mkdir()
        packages = sysconfig.get_path("purelib")
        binds = [sys.base_prefix, PYTHON, packages, PACKAGES, str(CHECKOUT), SOURCE]
        with (self._folder.parent / "sdbox.log").open("w") as log:
            self._outer = subprocess.Popen(
                ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(self._cgroup), "setpriv", "--pdeathsig", "KILL",
                 "unshare", "--fork", "--kill-child=SIGKILL", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup",
                 "--propagation", "private", "bash", "-eu", str(INIT), str(self._folder), *binds],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(self._is_up, timeout_s=30, what=f"systemd to boot (see {log.name})")
            self._install()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        (self._cgroup / "cgroup.kill").write_text("1")
        self._outer.wait()
        events = self._cgroup / "cgroup.events"
        wait_until(lambda: "populated 0" in events.read_text(), what="the box to be empty")
        for part in sorted(self._cgroup.rglob("*"), reverse=True):
            if part.is_dir():
                part.rmdir()
        self._cgroup.rmdir()

    def run(self, *command: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root."""
        done = subprocess.run(
            ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "nsenter", "-t", str(self._pid),
             "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", *command],
            input=text, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside."""
        self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && cat > {path} && chmod {mode:o} {path}', text=text)

    def outside_pids(self, group: str) -> list[int]:
        """The processes of a cgroup inside, with the pids that they have outside."""
        folders = [folder for folder in (self._cgroup / group.lstrip("/"),) if folder.is_dir()]
        return [int(pid) for folder in folders for pid in (folder / "cgroup.procs").read_text().split()]

    def python(self, program: str, *arguments: str) -> str:
        """Run a Python program inside, with rqsup to import; return what it prints."""
        return self.run(f"{VENV}/bin/python", "-c", program, *arguments).stdout

    def _is_up(self) -> bool:
        if self._outer.poll() is not None:
            raise AssertionError(f"the box did not start: {(self._folder.parent / 'sdbox.log').read_text()}")
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._outer.pid).children()
            if children and children[0].name() == "systemd":
                self._pid = children[0].pid
                state = self.run("systemctl", "is-system-running", check=False).stdout
                return state.strip() in {"running", "degraded"}
        return False

    def _install(self) -> None:
        """A virtual environment whose packages are this one's, but with rqsup from the bound checkout."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.write(f"{VENV}/pyvenv.cfg", f"home = {PYTHON}/bin\ninclude-system-site-packages = false\n")
        # In this order: the checkout comes first; links to it among the packages are not followed.
        self.write(f"{VENV}/lib/python{version}/site-packages/rqsup.pth", f"{SOURCE}\n{PACKAGES}\n")
        # A Python built with a shared library looks for it where it was built, and a service may not look there.
        self.write("/etc/ld.so.conf.d/00-python.conf", f"{PYTHON}/lib\n")
        self.run("ldconfig")
        self.run("mkdir", "-p", f"{VENV}/bin")
        self.run("ln", "-s", f"{PYTHON}/bin/python{version}", f"{VENV}/bin/python")
        script = f"#!{VENV}/bin/python\nfrom rqsup.supervisor.cli import main\nmain()\n"
        self.write("/usr/bin/rqsup", script, mode=0o755)
        for unit in ("rqsup@.service", "rqsup.target"):
            self.run("cp", f"{SOURCE}/systemd/{unit}", "/etc/systemd/system/")


def _cgroup_mount() -> str:
    found = subprocess.run(["findmnt", "-rnt", "cgroup2", "-o", "TARGET"], capture_output=True, text=True, check=False)
    return found.stdout.partition("\n")[0]
