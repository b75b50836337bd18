"""The control socket, the command's side: ask the master and wait for its answer, with plain sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from rqsup.errors import MasterRefused, MasterUnreachable
from rqsup.supervisor import exits
from rqsup.supervisor.ports import protocol

#: Seconds for the master to take the connection.
CONNECT_TIMEOUT_S = 5.0


def request(
    socket_path: str | Path,
    command: str,
    arguments: dict[str, Any] | None = None,
    *,
    timeout_s: float | None = 10.0,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Ask the master that listens on this path, and wait for its answer.

    Args:
        socket_path: the control socket.
        command: status, reload, upgrade, stop, quiet, resume, scale, ping.
        arguments: what the command takes.
        timeout_s: seconds until the answer; None = as long as the master lives.
        on_progress: called with each line of progress.

    Raises:
        MasterUnreachable: nobody answers; the message says what to do.
        MasterRefused: the master says no; it carries the exit code.
    """
    asked = protocol.Request(command=command, v=protocol.VERSION, arguments=arguments or {})
    with _connect(Path(socket_path)) as connection:
        for reply in _replies(connection, Path(socket_path), protocol.encode(asked), timeout_s):
            if reply.ok is not None:
                return _answer(reply)
            if on_progress and reply.progress is not None:
                on_progress(reply.progress)
    raise MasterUnreachable(f"the master ended before it had answered {command!r}: its log says why")


def master_pid(socket_path: str | Path) -> int:
    """The process that listens on this path, as the kernel knows it.

    Raises:
        MasterUnreachable: nobody listens there.
    """
    with _connect(Path(socket_path)) as connection:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, protocol.CREDENTIALS.size)
    pid: int = protocol.CREDENTIALS.unpack(raw)[0]
    return pid


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except OSError as fault:
        connection.close()
        raise MasterUnreachable(_connect_fault(path, fault)) from fault
    return connection


def _replies(connection: socket.socket, path: Path, line: bytes, timeout_s: float | None) -> Iterator[protocol.Reply]:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    received = bytearray()
    try:
        _send(connection, line, path)
        while True:
            connection.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            chunk = connection.recv(65536)
            if not chunk:
                return
            received += chunk
            while (end := received.find(b"\n")) >= 0:
                yield _parse(bytes(received[:end]), path)
                del received[: end + 1]
            if len(received) > protocol.ANSWER_LIMIT_BYTES:
                raise MasterUnreachable(f"what listens on {path} sends a line without end: it is no rqsup master")
    except TimeoutError:
        raise MasterUnreachable(
            f"the master on {path} did not answer within {timeout_s:g} s: it hangs or is stopped; see its log and `ps`"
        ) from None
    except ConnectionResetError:
        return


def _send(connection: socket.socket, line: bytes, path: Path) -> None:
    if len(line) > protocol.REQUEST_LIMIT_BYTES:
        raise MasterUnreachable(
            f"the request has more than {protocol.REQUEST_LIMIT_BYTES} bytes, which {path} would refuse"
        )
    with contextlib.suppress(BrokenPipeError):  # the master closed at once; what it said before is still to be read
        connection.sendall(line)


def _parse(line: bytes, path: Path) -> protocol.Reply:
    try:
        return msgspec.json.decode(line, type=protocol.Reply)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise MasterUnreachable(
            f"what listens on {path} does not speak the control protocol: check control.socket"
        ) from fault


def _answer(reply: protocol.Reply) -> dict[str, Any]:
    if reply.ok:
        return reply.answer or {}
    raise MasterRefused(reply.error or "the master gave no reason", reply.exit or exits.FAILURE)


def _connect_fault(path: Path, fault: OSError) -> str:
    advice = "start it with `rqsup run -c FILE`, or pass the -c FILE that it was started with"
    if isinstance(fault, FileNotFoundError):
        return f"no master listens on {path}: {advice}"
    if isinstance(fault, ConnectionRefusedError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            return f"{path} is no socket: set control.socket to the path of the master's"
        return f"the master that made {path} is gone: {advice}"
    if isinstance(fault, PermissionError):
        return f"user {os.geteuid()} may not open {path}: run the command as {_owner(path)}"
    if isinstance(fault, TimeoutError | BlockingIOError):
        return f"the master on {path} takes no connection: it hangs or is stopped; see its log and `ps`"
    return f"{path} cannot be opened ({fault.strerror or fault}): check control.socket"


def _owner(path: Path) -> str:
    """Who may open the socket: its owner, or that of the nearest folder that we may see; and root."""
    for part in (path, *path.parents):
        try:
            owner = part.owner()
        except (OSError, KeyError):
            continue
        return "root" if owner == "root" else f"user {owner} or root"
    return "its owner or root"
