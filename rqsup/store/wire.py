"""A connection of a worker, or of a client's thread: calls in a pipeline, over a plain socket.

Without redis-py: its layers cost a worker more per call than all of rqsup, and more memory than the rest of its
start. Answers come in the order of the calls. Not safe between threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

import hiredis

from rqsup.errors import RedisUnavailable
from rqsup.settings import RedisSettings
from rqsup.store.address import Address, make_tls, read_address
from rqsup.store.reach import parse_version
from rqsup.store.scripts import FLAGS_SINCE, Argument, Call, script

T = TypeVar("T")
#: Opens a socket to the server; a fault is an OSError.
Dial = Callable[[RedisSettings, Address], socket.socket]

#: Bytes read at once.
READ_BYTES = 1 << 16
#: Seconds beyond a blocking command's own time after which its connection counts as half-open.
LATE_S = 2.0
#: Number of the error by which TLS tells that there is not enough to read (ssl.SSL_ERROR_WANT_READ).
TLS_WANTS_READ = 2
#: Longest wait of one call: the kernel counts in a C int.
LONGEST_POLL_MS = (1 << 31) - 1


class Wire:
    """One pipelined connection. Every fault of it is a RedisUnavailable; then `connect` again."""

    def __init__(
        self, settings: RedisSettings, *, name: str, scripts: tuple[str, ...], dial: Dial | None = None
    ) -> None:  # fmt: skip
        self._settings = settings
        self._name = name
        self._dial = dial or open_socket
        self._scripts = scripts
        self._pid = 0
        self._socket: Any = None
        self._tls = False
        self._reader = hiredis.Reader()
        self._expected: deque[Call[Any]] = deque()
        #: Whether the server knows script flags; known when connected.
        self.flags = True

    def connect(self) -> None:
        """Open the connection anew and load the scripts. Calls that were under way are forgotten.

        Raises:
            RedisUnavailable: Redis does not answer, or is not ready.
        """
        self.close()
        address = read_address(self._settings)
        try:
            self._socket = self._dial(self._settings, address)
        except OSError as fault:
            raise RedisUnavailable(f"Redis does not answer: {fault}") from fault
        # From now on, and not for each answer anew: that would be a system call between two jobs.
        self._socket.settimeout(self._settings.socket_timeout)
        self._pid, self._tls = os.getpid(), address.tls
        self._reader = hiredis.Reader()
        try:
            for command in address.login():
                self.command(*command)
            self._introduce()
        except BaseException:
            self.close()
            raise

    def warm_up(self) -> None:
        """Load what `connect` will need, without a server: done before a fork, no child does it, nor holds it, alone."""
        if read_address(self._settings).tls:
            import_module("ssl")
        for name in self._scripts:
            script(name)

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._expected.clear()
        if self._socket is None:
            return
        if self._pid == os.getpid():
            # A process that a job left behind may hold the socket, too: a command under way must end all the same.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._socket = None

    def fileno(self) -> int:
        """The socket's descriptor, to wait on; -1 = there is no connection."""
        return -1 if self._socket is None else int(self._socket.fileno())

    def send(self, *calls: Call[Any]) -> None:
        """Send calls without waiting; their answers are read by `receive`, in this order."""
        self._write(*(call.command(flags=self.flags) for call in calls))
        self._expected.extend(calls)

    def receive(self) -> Any:
        """The answer to the oldest call that has none yet.

        Raises:
            RedisUnavailable: the connection failed, or the server answered with an error.
        """
        call = self._expected.popleft()
        return call.decode(self._reply())

    def run(self, call: Call[T]) -> T:
        """Send one call, and return its answer. No other answer may be due."""
        self.send(call)
        return cast(T, self.receive())

    def command(self, *arguments: Argument) -> Any:
        """Send one plain command, and return its reply. No other answer may be due."""
        self._write(arguments)
        return self._reply()

    def write(self, data: bytes) -> None:
        """Send packed commands without waiting; each has one answer to be read by `answer`."""
        if self._socket is None:
            raise RedisUnavailable("not connected to Redis")
        try:
            self._socket.sendall(data)
        except OSError as fault:
            raise RedisUnavailable(f"Redis went away: {fault}") from fault

    def answer(self) -> Any:
        """The next answer to what `write` sent; one that is an error is returned, not raised.

        Raises:
            RedisUnavailable: the connection failed.
        """
        reply = self._parsed()
        return self._read_until_reply() if reply is False else reply

    @property
    def connected(self) -> bool:
        """True from `connect` until `close`; the other end may have closed it meanwhile."""
        return self._socket is not None

    @property
    def is_open(self) -> bool:
        """True when nothing has closed the connection, nor sent what nobody asked for: the other end is there."""
        if self._socket is None:
            return False
        look = select.poll()
        look.register(self._socket, select.POLLIN)
        return not look.poll(0)

    def receive_arrived(self) -> list[Any]:
        """The answers that are whole by now, oldest first, without waiting for more.

        Raises:
            RedisUnavailable: the connection failed, or the server answered with an error.
        """
        self._socket.settimeout(0.0)
        try:
            answers: list[Any] = []
            while self._expected:
                while self._expected and (reply := self._parsed()) is not False:
                    _refuse_error(reply)
                    answers.append(self._expected.popleft().decode(reply))
                if not self._expected or not self._take_in():
                    break
            return answers
        finally:
            self._socket.settimeout(self._settings.socket_timeout)

    def receive_ready(self) -> list[Any]:
        """All answers that have come; to be called when the connection is readable, else it waits.

        Raises:
            RedisUnavailable: the connection failed, or the server answered with an error.
        """
        self._read()
        answers: list[Any] = []
        while (reply := self._parsed()) is not False:
            _refuse_error(reply)
            answers.append(self._expected.popleft().decode(reply) if self._expected else reply)
        return answers

    def start_move(self, source: str, target: str, timeout_s: float) -> None:
        """Send what `move_blocking` sends, and do not wait: the answer is the id that was moved, or None."""
        self._write(_move(source, target, timeout_s))

    def move_blocking(
        self, source: str, target: str, timeout_s: float, wakeup: Any, then: Call[T]
    ) -> tuple[bool, T] | None:
        """`BLMOVE source target RIGHT LEFT`: wait for an id, until the time is up or `wakeup` is readable; then one call.

        The call is sent along: the server runs it when the wait ends, with no round trip between.

        Returns:
            (whether an id was moved, the call's answer); None when `wakeup` has something to read: then the command is
            still under way, and the connection good for nothing but `connect`.
        """
        self._write(_move(source, target, timeout_s), then.command(flags=self.flags))
        deadline = time.monotonic() + timeout_s + LATE_S
        while not self._has_read:
            ready = wait_readable((self, wakeup), deadline - time.monotonic())
            if self in ready:
                break
            if ready:
                return None
            if time.monotonic() >= deadline:
                raise RedisUnavailable("the connection to Redis is half-open: a blocking command did not come back")
        return self._reply() is not None, then.decode(self._reply())

    @property
    def _has_read(self) -> bool:
        return bool(self._reader.has_data() or self._pending())

    def _introduce(self) -> None:
        """Name the connection, if it has one, learn the server's version, and load the scripts."""
        self._write(*((("CLIENT", "SETNAME", self._name),) if self._name else ()), ("INFO", "server"))
        if self._name:
            self._reply()
        info = bytes(self._reply()).decode()
        version = next(line.partition(":")[2] for line in info.splitlines() if line.startswith("redis_version:"))
        self.flags = parse_version(version) >= FLAGS_SINCE
        sources = [script(name).variant(flags=self.flags)[1] for name in self._scripts]
        self._write(*(("SCRIPT", "LOAD", source) for source in sources))
        for _ in sources:
            self._reply()

    def _write(self, *commands: tuple[Argument, ...]) -> None:
        self.write(b"".join(hiredis.pack_command(cast(Any, command)) for command in commands))

    def _reply(self) -> Any:
        reply = self._parsed()
        if reply is False:
            reply = self._read_until_reply()
        _refuse_error(reply)
        return reply

    def _parsed(self) -> Any:
        """The next reply of those that were read; False = none is whole yet."""
        try:
            return self._reader.gets()
        except hiredis.ProtocolError as fault:
            raise RedisUnavailable(f"what answers there is no Redis: {fault}") from fault

    def _take_in(self) -> bool:
        """Read once from a socket that does not wait; False = nothing was there."""
        try:
            self._read()
        except RedisUnavailable as fault:
            cause = fault.__cause__
            if isinstance(cause, BlockingIOError) or (self._tls and getattr(cause, "errno", 0) == TLS_WANTS_READ):
                return False
            raise
        return True

    def _read(self) -> None:
        """Take in what is there."""
        try:
            while True:
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise RedisUnavailable("Redis closed the connection")
                self._reader.feed(data)
                if not self._pending():
                    return
        except (OSError, hiredis.ProtocolError) as fault:
            raise RedisUnavailable(f"Redis went away: {fault}") from fault

    def _pending(self) -> bool:
        # TLS may hold bytes that the kernel has already handed over: a selector would not see them.
        return self._tls and self._socket.pending() > 0

    def _read_until_reply(self) -> Any:
        try:
            while True:
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise RedisUnavailable("Redis closed the connection")
                self._reader.feed(data)
                reply = self._reader.gets()
                if reply is not False:
                    return reply
        except (OSError, hiredis.ProtocolError) as fault:
            raise RedisUnavailable(f"Redis went away: {fault}") from fault


def open_socket(settings: RedisSettings, address: Address) -> socket.socket:
    """A socket to the server; a fault is an OSError."""
    if address.path:
        opened = socket.socket(socket.AF_UNIX)
    else:
        opened = socket.create_connection((address.host, address.port), settings.connect_timeout)
    try:
        opened.settimeout(settings.connect_timeout)
        if address.path:
            opened.connect(address.path)
            return opened
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return make_tls(settings).wrap_socket(opened, server_hostname=address.host) if address.tls else opened
    except BaseException:
        opened.close()
        raise


def _move(source: str, target: str, timeout_s: float) -> tuple[Argument, ...]:
    return ("BLMOVE", source, target, "RIGHT", "LEFT", f"{timeout_s:.3f}")


def _refuse_error(reply: Any) -> None:
    if isinstance(reply, hiredis.ReplyError):
        raise RedisUnavailable(f"Redis answered with an error: {reply}")


def wait_readable(sources: tuple[Any, ...], timeout_s: float) -> list[Any]:
    """Those sources that have something to read, after at most so many seconds."""
    watched = {source.fileno(): source for source in sources}
    poll = select.poll()
    for descriptor in watched:
        poll.register(descriptor, select.POLLIN)
    # Rounded up: a wait that ends too early would be begun again and again.
    return [
        watched[descriptor] for descriptor, _ in poll.poll(min(LONGEST_POLL_MS, math.ceil(1000 * max(0.0, timeout_s))))
    ]
