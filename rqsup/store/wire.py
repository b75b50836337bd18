"""A worker's own connection: calls in a pipeline, over a plain socket.

redis-py opens the connection (URL, TLS, login), then its layers are left aside: per call they cost
a worker more than all of rqsup. Answers come in the order of the calls. Not safe between threads.
"""

from __future__ import annotations

import selectors
import ssl
import time
from collections import deque
from typing import Any, TypeVar, cast

import hiredis
import redis
import redis.exceptions
from redis.connection import parse_url

from rqsup.errors import RedisUnavailable
from rqsup.settings import RedisSettings
from rqsup.store.connection import UNAVAILABLE, connection_options, parse_version
from rqsup.store.scripts import FLAGS_SINCE, Argument, Call, script

T = TypeVar("T")

#: Bytes read at once.
READ_BYTES = 1 << 16
#: Seconds beyond a blocking command's own time after which its connection counts as half-open.
LATE_S = 2.0


class Wire:
    """One pipelined connection. Every fault of it is a RedisUnavailable; then `connect` again."""

    def __init__(self, settings: RedisSettings, *, name: str, scripts: tuple[str, ...]) -> None:
        self._settings = settings
        self._name = name
        self._scripts = scripts
        self._connection: redis.Connection | None = None
        self._socket: Any = None
        self._reader = hiredis.Reader()
        self._expected: deque[Call[Any]] = deque()
        self._flags = True

    def connect(self) -> None:
        """Open the connection anew and load the scripts. Calls that were under way are forgotten.

        Raises:
            RedisUnavailable: Redis does not answer, or is not ready.
        """
        self.close()
        try:
            self._connection = self._make_connection()
            self._connection.connect()
            # redis-py has no public way to its socket; `close` goes through its own method again.
            self._socket = self._connection._sock  # noqa: SLF001
        except (*UNAVAILABLE, redis.exceptions.RedisError) as fault:
            self.close()
            raise RedisUnavailable(f"Redis does not answer: {fault}") from fault
        self._reader = hiredis.Reader()
        self._introduce()

    def warm_up(self) -> None:
        """Load what `connect` will need, without a server: done before a fork, no child does it, nor holds it, alone."""
        # The connection is dropped unopened: redis-py imports and reads things only when it makes its first one.
        self._make_connection()
        for name in self._scripts:
            script(name)

    def _make_connection(self) -> redis.Connection:
        # As a pool reads the URL; a pool of its own would cost each worker 150 KB.
        options = connection_options(self._settings) | dict(parse_url(self._settings.url))
        kind = options.pop("connection_class", redis.Connection)
        return cast(redis.Connection, kind(**options))

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._expected.clear()
        if self._connection is not None:
            self._connection.disconnect()
        self._connection = self._socket = None

    def fileno(self) -> int:
        """The socket's descriptor, to wait on; -1 = there is no connection."""
        return -1 if self._socket is None else int(self._socket.fileno())

    def send(self, *calls: Call[Any]) -> None:
        """Send calls without waiting; their answers are read by `receive`, in this order."""
        self._write(*(call.command(flags=self._flags) for call in calls))
        self._expected.extend(calls)

    def receive(self) -> Any:
        """The answer to the oldest call that has none yet.

        Raises:
            RedisUnavailable: the connection failed, or the server answered with an error.
        """
        call = self._expected.popleft()
        return call.decode(self._reply(self._settings.socket_timeout))

    def run(self, call: Call[T]) -> T:
        """Send one call, and return its answer. No other answer may be due."""
        self.send(call)
        return cast(T, self.receive())

    def command(self, *arguments: Argument) -> Any:
        """Send one plain command, and return its reply. No other answer may be due."""
        self._write(arguments)
        return self._reply(self._settings.socket_timeout)

    def receive_ready(self) -> list[Any]:
        """All answers that have come; to be called when the connection is readable, else it waits.

        Raises:
            RedisUnavailable: the connection failed, or the server answered with an error.
        """
        self._read()
        answers: list[Any] = []
        while (reply := self._reader.gets()) is not False:
            _refuse_error(reply)
            answers.append(self._expected.popleft().decode(reply) if self._expected else reply)
        return answers

    def start_move(self, source: str, target: str, timeout_s: float) -> None:
        """Send what `move_blocking` sends, and do not wait: the answer is the id that was moved, or None."""
        self._write(("BLMOVE", source, target, "RIGHT", "LEFT", f"{timeout_s:.3f}"))

    def move_blocking(self, source: str, target: str, timeout_s: float, wakeup: Any) -> bool | None:
        """`BLMOVE source target RIGHT LEFT`: wait for an id, until the time is up or `wakeup` is readable.

        Returns:
            True when an id was moved, False when the time was up, None when `wakeup` has something to
            read: then the command is still under way, and the connection good for nothing but `connect`.
        """
        self.start_move(source, target, timeout_s)
        deadline = time.monotonic() + timeout_s + LATE_S
        while not (self._reader.has_data() or _pending(self._socket)):
            ready = wait_readable((self, wakeup), deadline - time.monotonic())
            if self in ready:
                break
            if ready:
                return None
            if time.monotonic() >= deadline:
                raise RedisUnavailable("the connection to Redis is half-open: a blocking command did not come back")
        return self._reply(self._settings.socket_timeout) is not None

    def _introduce(self) -> None:
        """Name the connection, learn the server's version, and load the scripts, in one round trip."""
        self._write(("CLIENT", "SETNAME", self._name), ("INFO", "server"))
        self._reply(self._settings.socket_timeout)
        info = bytes(self._reply(self._settings.socket_timeout)).decode()
        version = next(line.partition(":")[2] for line in info.splitlines() if line.startswith("redis_version:"))
        self._flags = parse_version(version) >= FLAGS_SINCE
        sources = [script(name).variant(flags=self._flags)[1] for name in self._scripts]
        self._write(*(("SCRIPT", "LOAD", source) for source in sources))
        for _ in sources:
            self._reply(self._settings.socket_timeout)

    def _write(self, *commands: tuple[Argument, ...]) -> None:
        if self._socket is None:
            raise RedisUnavailable("not connected to Redis")
        try:
            self._socket.sendall(b"".join(hiredis.pack_command(cast(Any, command)) for command in commands))
        except UNAVAILABLE as fault:
            raise RedisUnavailable(f"Redis went away: {fault}") from fault

    def _reply(self, timeout_s: float) -> Any:
        reply = self._reader.gets()
        if reply is False:
            reply = self._read_until_reply(timeout_s)
        _refuse_error(reply)
        return reply

    def _read(self) -> None:
        """Take in what is there."""
        try:
            while True:
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise RedisUnavailable("Redis closed the connection")
                self._reader.feed(data)
                if not _pending(self._socket):
                    return
        except (*UNAVAILABLE, hiredis.ProtocolError) as fault:
            raise RedisUnavailable(f"Redis went away: {fault}") from fault

    def _read_until_reply(self, timeout_s: float) -> Any:
        try:
            self._socket.settimeout(timeout_s)
            while True:
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise RedisUnavailable("Redis closed the connection")
                self._reader.feed(data)
                reply = self._reader.gets()
                if reply is not False:
                    return reply
        except (*UNAVAILABLE, hiredis.ProtocolError) as fault:
            raise RedisUnavailable(f"Redis went away: {fault}") from fault


def _refuse_error(reply: Any) -> None:
    if isinstance(reply, hiredis.ReplyError):
        raise RedisUnavailable(f"Redis answered with an error: {reply}")


def _pending(connection: Any) -> bool:
    # TLS may hold bytes that the kernel has already handed over: a selector would not see them.
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0


def wait_readable(sources: tuple[Any, ...], timeout_s: float) -> list[Any]:
    """Those sources that have something to read, after at most so many seconds."""
    with selectors.DefaultSelector() as selector:
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(max(0.0, timeout_s))]
