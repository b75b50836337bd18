"""The place of the control socket in the file system: one master holds it, and no other user can put a socket there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path

from rqsup.errors import RqsupError

FOLDER_MODE = 0o750
SOCKET_MODE = 0o660
#: Clients that may wait to be accepted.
BACKLOG = 16


class SocketPlace:
    """Takes and gives back the path of the control socket.

    1. A lock on `<socket>.lock`, held for life, decides between masters that start at once; it ends with
       the process, however that ends. The file stays: removing it would let two masters lock two files.
    2. A socket left by a dead master is removed; one that somebody answers on is not.
    3. Modes do not depend on the umask.
    """

    def __init__(self, path: Path, pool: str) -> None:
        self._path = path
        self._pool = pool
        self._lock: int | None = None

    @property
    def lock(self) -> int:
        """The descriptor of the lock; negative = this process does not hold the place."""
        return -1 if self._lock is None else self._lock

    def inherit(self, lock: int) -> None:
        """Hold the place that the program before this one took; the kernel's lock goes with the descriptor."""
        self._lock = lock

    def take(self) -> socket.socket:
        """A listening, non-blocking socket at the path.

        Raises:
            RqsupError: another master has the place, or the place is not safe.
        """
        try:
            self._make_folder()
            self._hold_lock()
            self._remove_stale()
            return self._listen()
        except OSError as fault:
            self._release()
            raise RqsupError(
                f"the control socket {self._path} cannot be made ({fault.strerror or fault}): "
                "set control.socket to a short path in a folder that this user may write to"
            ) from fault
        except RqsupError:
            self._release()
            raise

    def leave(self) -> None:
        """Remove the socket and let the next master in."""
        if self._lock is not None:
            self._path.unlink(missing_ok=True)
            self._release()

    def _make_folder(self) -> None:
        folder = self._path.absolute().parent
        missing = [part for part in (folder, *folder.parents) if not part.exists()]
        for part in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another master starts at once; what it made is checked below
                part.mkdir()
                part.chmod(FOLDER_MODE)
        _refuse_unsafe(folder.resolve())

    def _hold_lock(self) -> None:
        self._lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode(errors="replace").strip()
            raise self._taken(holder) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)  # for the message above; never used to judge

    def _remove_stale(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise RqsupError(f"{self._path} is in the way and is no socket: remove it, or set control.socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink(missing_ok=True)
                return
            except BlockingIOError:
                pass  # its queue is full, so somebody listens
        raise self._taken("")

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(self._path))
            self._path.chmod(SOCKET_MODE)  # before `listen`: until then nobody can connect, whatever the umask was
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def _taken(self, holder: str) -> RqsupError:
        who = f" (pid {holder})" if holder else ""
        return RqsupError(
            f"a master already runs for pool {self._pool}{who} on {self._path}: "
            "stop it with `rqsup stop`, or give this one another `pool` or `control.socket`"
        )

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _refuse_unsafe(folder: Path) -> None:
    """Refuse a folder in which another user could put a socket of his own under our name."""
    trusted = {0, os.geteuid()}
    for part in (folder, *folder.parents):
        facts = part.stat()
        foreign = facts.st_uid not in trusted and os.geteuid() != 0
        open_to_all = facts.st_mode & stat.S_IWOTH and not (facts.st_mode & stat.S_ISVTX and part != folder)
        if foreign or open_to_all:
            reason = f"belongs to user {facts.st_uid}" if foreign else "can be written to by everybody"
            raise RqsupError(f"{part} {reason}, so the control socket would not be safe there: set control.socket")
