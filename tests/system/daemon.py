"""A real `rqsup run` for tests: its own folder, its own socket, its log shown when a test fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from rqsup import Client
from rqsup.errors import RqsupError
from rqsup.supervisor.ports.dial import request
from tests.waiting import wait_until

#: Folder of the application modules.
APPS = Path(__file__).parent / "apps"


class Daemon:
    """One master and its workers. `start` returns when the workers are ready."""

    def __init__(
        self, url: str, namespace: str, *, folder: Path | None = None, prefix: Sequence[str] = (), **sections: Any
    ) -> None:  # fmt: skip
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rqsup-daemon-"))
        self.config = self.folder / "rqsup.yaml"
        self.socket = self.folder / "control.sock"
        self.log = self.folder / "log"
        self.url = url
        self.settings: dict[str, Any] = {
            "app": ["probe"], "namespace": namespace, "pool": "test", "redis": {"url": url},
            "workers": {"count": 4}, "metrics": {"port": 0}, "control": {"socket": str(self.socket)},
            "log": {"format": "console", "level": "info"},
        }  # fmt: skip
        for name, value in sections.items():
            known = self.settings.get(name)
            self.settings[name] = known | value if isinstance(known, dict) else value
        self.write_config()
        self.process: subprocess.Popen[bytes] | None = None
        #: A program that becomes the master, with its arguments, as `nice`, and variables that only it gets.
        self.wrapper = list(prefix)
        self.environ: dict[str, str] = {}

    def write_config(self) -> None:
        """Write the settings to the file that the master reads."""
        self.config.write_text(yaml.safe_dump(self.settings))

    def launch(self, *arguments: str, path: Path = APPS, python: Sequence[str] = ()) -> Daemon:
        """Start the master and return at once; `python` are options of the interpreter."""
        interpreter = [*self.wrapper, sys.executable, *python]
        command = [*interpreter, "-m", "rqsup.supervisor", "run", "-c", str(self.config), *arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=path, stderr=log, stdout=log, start_new_session=True, env=os.environ | self.environ
            )
        return self

    def start(self, *arguments: str, path: Path = APPS, timeout_s: float = 30) -> Daemon:
        """Start the master and wait until all of its workers are ready."""
        self.launch(*arguments, path=path)
        wanted = self.settings["workers"]["count"]
        wait_until(lambda: self.is_ready(wanted), timeout_s, f"{wanted} ready workers; log:\n{self.log_text()}")
        return self

    def is_ready(self, workers: int) -> bool:
        """True when so many workers are ready and Redis answers."""
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"the master ended:\n{self.log_text()}")
        try:
            status = self.status()
        except (RqsupError, OSError):
            return False
        return bool(status["ready"] >= workers and status["redis_ok"])

    @property
    def pid(self) -> int:
        """The master's process id."""
        if self.process is None:
            raise AssertionError("not started")
        return self.process.pid

    def ask(self, command: str, timeout_s: float = 60, **arguments: Any) -> dict[str, Any]:
        """Send a command to the control socket, and return the answer."""
        return request(str(self.socket), command, arguments, timeout_s=timeout_s)

    def status(self) -> dict[str, Any]:
        """The snapshot."""
        return self.ask("status", timeout_s=5)

    def workers(self, state: str | None = None) -> list[dict[str, Any]]:
        """The workers, all or those in one state."""
        found: list[dict[str, Any]] = self.status()["workers"]
        return [worker for worker in found if state in {None, worker["state"]}]

    def busy_worker(self) -> dict[str, Any]:
        """A worker that is inside a job; waits for one."""
        return wait_until(lambda: next(iter(self.workers("busy")), None), what="a busy worker") or {}

    def tree(self) -> list[int]:
        """Pids of the master and of all its descendants."""
        family = psutil.Process(self.pid)
        return [self.pid, *(process.pid for process in family.children(recursive=True))]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the master."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for the master's end; returns its exit status."""
        if self.process is None:
            raise AssertionError("not started")
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """Stop in order, by force if need be; returns the exit status."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process else 0
        # A test may have stopped parts of the tree.
        for pid in self.tree():
            _send(pid, signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.wait(5)

    def kill(self) -> None:
        """SIGKILL the master."""
        if self.process is None:
            raise AssertionError("not started")
        self.process.kill()
        self.process.wait(5)

    def log_text(self) -> str:
        """What the master and its workers logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def is_alive(pid: int) -> bool:
    """True while the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_line(pid: int) -> str:
    """A process's command line or title; empty once it has ended, be it reaped or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def stats(client: Client) -> dict[str, int]:
    """The counters of a namespace."""
    found = client.store.client.hgetall(client.keys.stats)
    return {name.decode(): int(value) for name, value in found.items()}


def all_ended(client: Client, jobs: int) -> bool:
    """True when so many jobs have succeeded or are dead."""
    seen = stats(client)
    return seen.get("succeeded", 0) + seen.get("dead", 0) >= jobs


def sample_until(predicate: Any, look: Any, timeout_s: float) -> list[Any]:
    """Collect what `look` returns, as often as it can, until the predicate is true."""
    seen, deadline = [], time.monotonic() + timeout_s
    while not predicate() and time.monotonic() < deadline:
        seen.append(look())
    return seen


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
