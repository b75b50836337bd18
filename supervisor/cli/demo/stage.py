"""What the demo runs on: a folder, a Redis server and a master with its workers, all gone at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import redis
import yaml

from rqsup.client import Client
from rqsup.config import load
from rqsup.config_source import read_yaml
from rqsup.errors import MasterUnreachable, RqsupError
from rqsup.settings import ControlSettings, LogSettings, MetricsSettings, RedisSettings, Settings, WorkerSettings
from rqsup.store import tether
from rqsup.store.connection import await_server
from rqsup.store.server import LocalServer
from rqsup.supervisor.ports import dial
from rqsup.supervisor.snapshot import Snapshot

#: The application, an ordinary module; its task is TASK, its queue QUEUE.
APP, TASK, QUEUE = "rqsup.examples.files", "files.digest", "files"
WORKERS = 4
#: Seconds for the master to have all workers ready, to answer, and to end.
READY_TIMEOUT_S, ANSWER_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 10.0, 15.0
#: Pause between two looks at a master that starts, seconds.
LOOK_PAUSE_S = 0.02
#: Variables that would change the master's settings, or make it talk to the demo's own service manager.
NOT_INHERITED = ("RQSUP_", "NOTIFY_SOCKET", "WATCHDOG_", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY")
#: Lines of the master's log shown when it does not start.
TAIL_LINES = 8

Tell = Callable[[str], None]


class Stage:
    """Starts the parts in order, and takes them down in the opposite one.

    Enter it in the main thread: to the kernel, the thread that starts a child is its parent.

    Args:
        config: the configuration file given, if any; only its Redis is used.
        tell: called with each thing that happened, in words.
    """

    def __init__(self, config: str | None, tell: Tell) -> None:
        given = load(config)
        self._tell = tell
        self._redis = given.redis if _names_redis(config) else None
        self._server: LocalServer | None = None
        self._master: subprocess.Popen[bytes] | None = None
        self._keep = False
        self.folder = Path(tempfile.mkdtemp(prefix="rqsup-demo-"))
        self.settings = Settings()

    def __enter__(self) -> Self:
        try:
            self.settings = self._settings(self._redis or self._start_redis())
            with Client(settings=self.settings) as client:
                await_server(client.store.client, self.settings.redis, self._tell)
            self._start_master()
        except BaseException as fault:
            self._close(failed=isinstance(fault, RqsupError))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(failed=fault is not None and isinstance(fault, RqsupError))

    def keep_log(self) -> None:
        """Leave the folder with the master's log in place, because something is to be looked up."""
        self._keep = True

    def snapshot(self) -> Snapshot:
        """The master and its workers now.

        Raises:
            RqsupError: the master has ended.
        """
        self._check_master()
        answer = dial.request(self.settings.control.socket, "status", timeout_s=ANSWER_TIMEOUT_S)
        return msgspec.convert(answer, Snapshot)

    def _settings(self, server: RedisSettings) -> Settings:
        return Settings(
            app=[APP],
            pool="demo",
            namespace=f"demo-{uuid.uuid4().hex[:12]}",
            redis=server,
            workers=WorkerSettings(count=WORKERS, queues=[QUEUE], drain_timeout=5.0),
            metrics=MetricsSettings(port=0),
            control=ControlSettings(socket=str(self.folder / "control.sock")),
            log=LogSettings(format="json"),
        )

    def _start_redis(self) -> RedisSettings:
        self._server = LocalServer(self.folder / "redis").start()
        self._tell(f"started a Redis server of its own, pid {self._server.pid}, with an append-only file")
        return RedisSettings(url=self._server.url)

    def _start_master(self) -> None:
        config = self.folder / "rqsup.yaml"
        config.touch(mode=0o600)  # the URL may hold a password
        config.write_text(yaml.safe_dump(msgspec.to_builtins(self.settings)), encoding="utf-8")
        environ = {key: value for key, value in os.environ.items() if not key.startswith(NOT_INHERITED)}
        # Tethered: when the demo is killed, so is the master, and with it its workers.
        launcher = [sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid())]
        command = [sys.executable, "-m", "rqsup.supervisor", "run", "-c", str(config)]
        with self._log.open("ab") as log:
            self._master = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        self._await_workers()
        self._tell(f"started a master, pid {self._master.pid}, with {WORKERS} workers")

    def _await_workers(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            self._check_master()
            with contextlib.suppress(MasterUnreachable):  # it has no socket yet; the deadline decides
                if self.snapshot().ready >= WORKERS:
                    return
            time.sleep(LOOK_PAUSE_S)
        raise RqsupError(f"the demo's workers were not ready within {READY_TIMEOUT_S:g} s:\n{self._tail()}")

    def _check_master(self) -> None:
        if self._master is not None and self._master.poll() is not None:
            raise RqsupError(f"the demo's master ended with status {self._master.returncode}:\n{self._tail()}")

    @property
    def _log(self) -> Path:
        return self.folder / "master.log"

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    def _close(self, *, failed: bool) -> None:
        try:
            self._stop_master()
        finally:
            self._stop_redis()
            if (failed or self._keep) and self._log.exists():
                self._tell(f"the master's log is kept in {self._log}")
            else:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _stop_master(self) -> None:
        if self._master is None:
            return
        self._master.terminate()
        try:
            self._master.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._tell(f"the master did not end within {STOP_TIMEOUT_S:g} s and is killed")
            self._master.kill()
            self._master.wait()

    def _stop_redis(self) -> None:
        if self._server is not None:
            self._server.kill()  # its data goes with the folder: nothing is worth an orderly end
        elif self._master is not None:
            self._sweep_up()

    def _sweep_up(self) -> None:
        """Leave a server that is not ours as it was."""
        with Client(settings=self.settings) as client:
            try:
                _sweep(client)
            except redis.RedisError as fault:
                self._tell(f"the demo's keys {client.keys.root}* could not be removed: {fault}")


def _names_redis(config: str | None) -> bool:
    """Whether a Redis is configured, as opposed to the default that every configuration has."""
    if "RQSUP_REDIS__URL" in os.environ:
        return True
    section = read_yaml(Path(config), []).get("redis") if config else None
    return isinstance(section, dict) and bool(section.get("url"))


def _sweep(client: Client) -> None:
    """Remove every key of the demo's own namespace from a server that is not its own."""
    store = client.store.client
    page: list[bytes] = []
    for key in store.scan_iter(f"{client.keys.root}*", count=1000):
        page.append(key)
        if len(page) == 1000:
            store.unlink(*page)
            page.clear()
    if page:
        store.unlink(*page)
