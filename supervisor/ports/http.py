"""The HTTP port: GET and HEAD of /metrics, /healthz and /readyz, for Prometheus and load balancers.

Small on purpose: one request per connection, no bodies read, bounds on size, time and number, so that
no client, however slow or hostile, can delay the master's loop or fill its memory.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from rqsup.errors import RqsupError
from rqsup.supervisor.ports.hold import hold

_log = logging.getLogger("rqsup.master")

#: Most connections at once; the next one is refused with 503.
CONNECTION_LIMIT = 64
#: Most bytes of request line and headers.
REQUEST_LIMIT_BYTES = 8192
#: Seconds for sending the request, and again for taking the answer.
DEADLINE_S = 5.0
#: Clients that may wait to be accepted.
BACKLOG = 128
#: Seconds that a refused client has to read why.
LINGER_S = 0.5

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
PLAIN_TEXT = "text/plain; charset=utf-8"

Check = Callable[[], tuple[bool, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client."""

    status: HTTPStatus
    body: bytes
    content_type: str = PLAIN_TEXT
    head_only: bool = False

    def encode(self) -> bytes:
        """The bytes on the wire."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if self.status is HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET, HEAD")
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        return head if self.head_only else head + self.body


class HttpPort:
    """Serves the three pages from functions that the master gives; runs in the master's loop."""

    def __init__(self, *, metrics: Callable[[], bytes], healthy: Check, ready: Check) -> None:
        self._metrics = metrics
        self._checks = {"/healthz": healthy, "/readyz": ready}
        #: One for each address of the host's name, or for each socket of the program before this one.
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> str:
        """Listen; return the address as `host:port`.

        Raises:
            RqsupError: the port is taken, or the address is not ours.
        """
        try:
            self._servers = [
                await asyncio.start_server(self._accept, host, port, limit=REQUEST_LIMIT_BYTES, backlog=BACKLOG)
            ]
        except OSError as fault:
            raise RqsupError(_listen_fault(host, port, fault)) from fault
        name = self._servers[0].sockets[0].getsockname()
        shown = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{shown}:{name[1]}"

    async def hold(self) -> list[int]:
        """Take no more clients: they wait in the sockets' queues. Those who came before are served, or miss a deadline.

        Returns the descriptors of the sockets, for `go_on`, here or in another program.
        """
        listeners = await hold(self._servers)
        if self._clients:
            await asyncio.wait(self._clients, timeout=2 * DEADLINE_S)
        return listeners

    async def go_on(self, listeners: list[int]) -> None:
        """Take clients again on what `hold` returned."""
        self._servers = [
            await asyncio.start_server(
                self._accept, sock=socket.socket(fileno=listener), limit=REQUEST_LIMIT_BYTES, backlog=BACKLOG
            )
            for listener in listeners
        ]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        for server in self._servers:
            server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers = []

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= 2 * CONNECTION_LIMIT:  # even those being told 503 are bounded
            writer.transport.abort()
            return
        refused = len(self._clients) >= CONNECTION_LIMIT
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, refused=refused))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, refused: bool) -> None:
        try:
            if refused:
                answer = _error(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            else:
                answer = await self._answer(reader)
            await _send(answer, reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # the client went away or does not take its answer; there is nobody to tell
        except asyncio.CancelledError:
            writer.transport.abort()  # the port closes: a slow reader must not hold it up
            raise
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        try:
            async with asyncio.timeout(DEADLINE_S):
                request = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return _error(HTTPStatus.REQUEST_TIMEOUT, f"no complete request within {DEADLINE_S:g} s")
        except asyncio.LimitOverrunError:
            return _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"request over {REQUEST_LIMIT_BYTES} bytes")
        except asyncio.IncompleteReadError as fault:
            if not fault.partial:
                raise
            return _error(HTTPStatus.BAD_REQUEST, "incomplete request")
        if len(request) > REQUEST_LIMIT_BYTES:
            return _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"request over {REQUEST_LIMIT_BYTES} bytes")
        return self._route(request)

    def _route(self, request: bytes) -> Answer:
        try:
            line, *headers = request.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
            method, target, protocol = line.split(" ")
        except ValueError:
            return _error(HTTPStatus.BAD_REQUEST, "malformed request line")
        if protocol not in {"HTTP/1.0", "HTTP/1.1"} or not target.startswith("/"):
            return _error(HTTPStatus.BAD_REQUEST, "malformed request line")
        if not all(header.partition(":")[0].strip() and ":" in header for header in headers):
            return _error(HTTPStatus.BAD_REQUEST, "malformed header")
        path = target.partition("?")[0]
        if path != "/metrics" and path not in self._checks:
            return _error(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")
        if method not in {"GET", "HEAD"}:
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
        return self._page(path, head_only=method == "HEAD")

    def _page(self, path: str, *, head_only: bool) -> Answer:
        try:
            if path == "/metrics":
                return Answer(HTTPStatus.OK, self._metrics(), PROMETHEUS_TEXT, head_only)
            good, text = self._checks[path]()
        except Exception:  # noqa: BLE001 - a fault in one page must not end the master; it is logged with its stack
            _log.exception("%s could not be made", path)
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "see the master's log")
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, f"{text}\n".encode(), head_only=head_only)


def _error(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode())


async def _send(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits until the kernel has taken all of it
    async with asyncio.timeout(DEADLINE_S):
        writer.write(answer.encode())
        await writer.drain()
    if answer.status >= HTTPStatus.BAD_REQUEST:
        await _linger(reader, writer)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read on for a moment: closing with unread bytes would reset the connection before the client has the answer."""
    writer.write_eof()
    try:
        async with asyncio.timeout(LINGER_S):
            while await reader.read(REQUEST_LIMIT_BYTES):
                pass
    except TimeoutError:
        pass  # it had its time to read


def _listen_fault(host: str, port: int, fault: OSError) -> str:
    if fault.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another process: set metrics.port to a free one, 0 for any, or stop the other"
    if fault.errno == errno.EACCES:
        return f"this user may not listen on port {port}: set metrics.port to one above 1023"
    if isinstance(fault, socket.gaierror) or fault.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this host ({fault.strerror}): correct metrics.host"
    return f"cannot listen on {host} port {port} ({fault}): correct metrics.host and metrics.port"
