"""Messages to systemd over its notification socket (`sd_notify`), never blocking and never fatal."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

_log = logging.getLogger("rqsup.master")

#: What systemd sets for the main process only; a child that inherited it would speak in the master's name.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: Longest status text; `systemctl status` shows one line.
STATUS_LENGTH = 500


def memory_pressure_file(environ: Mapping[str, str] = os.environ) -> str:
    """The file of the unit's own memory pressure, where systemd names one; else empty."""
    path = environ.get("MEMORY_PRESSURE_WATCH", "")
    # /dev/null = an operator wants no reaction to pressure of the unit. Sockets and FIFOs are no files to read.
    return path if path.startswith("/sys/fs/cgroup/") else ""


class Notifier:
    """Tells systemd what the master is doing; says nothing when systemd did not ask.

    1. Every message is one datagram on a non-blocking socket.
    2. A full or missing socket is logged once and forgotten: telling must not disturb supervising.
    3. Only the master's loop uses it, so a watchdog message proves that the loop turns.
    """

    def __init__(self, address: str = "", watchdog_interval_s: float | None = None) -> None:
        self._address = address
        self._watchdog_interval_s = watchdog_interval_s if address else None
        #: What systemd set for this process, for the program that takes its place.
        self.variables: dict[str, str] = {}
        self._status = ""
        self._fault_logged = False
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """Read what systemd asks for, and remove it, so that no child inherits it."""
        asked = {name: environ.pop(name, "") for name in VARIABLES}
        address = asked["NOTIFY_SOCKET"]
        if address and address[0] not in "/@":
            _log.warning("NOTIFY_SOCKET=%s is no Unix socket: systemd is told nothing", address)
            address = ""
        notifier = cls(address.replace("@", "\0", 1) if address[:1] == "@" else address, _watchdog_interval_s(asked))
        notifier.variables = {name: value for name, value in asked.items() if value}
        return notifier

    @property
    def watchdog_interval_s(self) -> float | None:
        """Seconds between two watchdog messages, a third of what systemd allows; None = it does not watch us."""
        return self._watchdog_interval_s

    def ready(self, status: str) -> None:
        """Start or reload is over, well or not; the text says which."""
        self._send("READY=1", self._status_line(status))

    def status(self, text: str) -> None:
        """Show a text in `systemctl status`; sent only when it changed."""
        before = self._status
        line = self._status_line(text)
        if self._status != before:
            self._send(line)

    def reloading(self) -> None:
        """A reload begins; `ready` has to follow, also when it fails."""
        # Both fields in one datagram: systemd waits for the time stamp, and a reload without it hangs.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """The master drains and will exit."""
        self._send("STOPPING=1", self._status_line(status))

    def extend_timeout(self, seconds: float) -> None:
        """Ask for this much more time, from now, to start, reload or stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def watchdog(self) -> None:
        """The loop has turned."""
        self._send("WATCHDOG=1")

    def stretch_watchdog(self, seconds: float) -> None:
        """Ask for so long a silence, from now; `restore_watchdog` ends that."""
        if self._watchdog_interval_s is not None:
            self._send("WATCHDOG=1", f"WATCHDOG_USEC={int(seconds * 1_000_000)}")

    def restore_watchdog(self) -> None:
        """Be watched as the unit says again."""
        if self._watchdog_interval_s is not None:
            self._send("WATCHDOG=1", f"WATCHDOG_USEC={self.variables['WATCHDOG_USEC']}")

    def close(self) -> None:
        """Give the socket back; later messages go nowhere."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _status_line(self, text: str) -> str:
        # A line break would start a new field, so a text from an exception could say READY=1.
        self._status = " ".join(text.split())[:STATUS_LENGTH]
        return f"STATUS={self._status}"

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as fault:
            if not self._fault_logged:
                self._fault_logged = True
                _log.warning("systemd cannot be told %s: %s; further such faults are not logged", lines[0], fault)


def _watchdog_interval_s(asked: MutableMapping[str, str]) -> float | None:
    if asked["WATCHDOG_PID"] not in {"", str(os.getpid())}:
        return None
    with contextlib.suppress(ValueError):  # anything but a number: systemd did not write it
        microseconds = int(asked["WATCHDOG_USEC"] or 0)
        return microseconds / 3_000_000 if microseconds > 0 else None
    return None
