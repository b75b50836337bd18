"""The control socket, the master's side: it takes commands from `rqsup status`, `reload`, `stop` and the like.

Whoever may open the socket may stop the pool, so the folder, the socket's mode and the peer's user are
all checked. No client, however slow or hostile, can delay the master's loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from rqsup.errors import AppImportError, ConfigError, MasterRefused, RqsupError
from rqsup.supervisor import exits
from rqsup.supervisor.ports import protocol
from rqsup.supervisor.ports.hold import hold
from rqsup.supervisor.ports.place import SocketPlace

_log = logging.getLogger("rqsup.master")

#: Most clients at once; the next one gets an error line.
CLIENT_LIMIT = 16
#: Seconds for sending the request, and again for taking the answer.
DEADLINE_S = 5.0
#: Seconds that running commands have to answer when the port closes.
CLOSE_GRACE_S = 1.0
#: A client that lets so many bytes pile up misses further progress lines, but not its answer.
BACKLOG_BYTES = 64 * 1024

#: The command whose client is handed over to the next program.
UPGRADE = "upgrade"


class Teller:
    """A command's way to its client: lines of progress, while there is room for them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        #: The client's user, as the kernel knows it.
        self.uid = _peer_uid(writer.get_extra_info("socket"))

    def __call__(self, text: str) -> None:
        """Send a line; dropped when there is no room."""
        if self.has_room:
            self._writer.write(protocol.encode(protocol.Reply(progress=text)))

    @property
    def descriptor(self) -> int:
        """The connection's."""
        return int(self._writer.get_extra_info("socket").fileno())

    @property
    def has_room(self) -> bool:
        """False while the client does not read, and once it has gone."""
        return self._writer.transport.get_write_buffer_size() < BACKLOG_BYTES and not self.gone

    @property
    def gone(self) -> bool:
        """True once the client has hung up. A command that acts goes on all the same; one that only tells ends."""
        return self._writer.is_closing() or self._reader.at_eof()


Handle = Callable[[str, dict[str, Any], Teller], Awaitable[dict[str, Any]]]
Work = Callable[[Teller], Awaitable[dict[str, Any]]]


class ControlPort:
    """Reads one request per client, has it handled, and sends progress and the answer; runs in the master's loop.

    A command once begun goes on when its client leaves: Ctrl-C at `rqsup stop` must not leave a pool half stopped.
    """

    def __init__(self, socket_path: str | Path, handle: Handle, *, pool: str = "default") -> None:
        self._place = SocketPlace(Path(socket_path), pool)
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        #: The command that each of them asked for, once it is known, and the way to it.
        self._asked: dict[asyncio.Task[None], tuple[str, Teller]] = {}

    async def start(self) -> None:
        """Take the socket's place and listen.

        Raises:
            RqsupError: another master has this place, or it is not safe.
        """
        listener = self._place.take()
        try:
            await self._listen(listener)
        except BaseException:
            listener.close()
            self._place.leave()
            raise

    async def hold(self) -> tuple[int, int]:
        """Take no more clients: they wait in the socket's queue. Those who came before are served, or miss a deadline.

        Returns the descriptors of the socket and of the lock on its place, for `go_on`, here or in another program.
        """
        if self._server is None:
            raise AssertionError("start comes first")
        (listener,) = await hold([self._server])
        # All but the one that waits for the upgrade, which may take longer.
        waited_for = {client for client in self._clients if self._asked.get(client, ("",))[0] != UPGRADE}
        if waited_for:
            await asyncio.wait(waited_for, timeout=2 * DEADLINE_S)
        return listener, self._place.lock

    async def go_on(self, listener: int, lock: int) -> None:
        """Take clients again on what `hold` returned."""
        self._place.inherit(lock)
        await self._listen(socket.socket(fileno=listener))

    def requesters(self) -> list[int]:
        """Descriptors of the clients that wait for an upgrade."""
        return [tell.descriptor for name, tell in self._asked.values() if name == UPGRADE]

    async def answer(self, descriptor: int, work: Work) -> None:
        """Serve a client that the program before this one took, and whose command is still under way."""
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
        self._attend(self._serve(self._carry_out(UPGRADE, work, Teller(reader, writer)), writer))

    async def close(self) -> None:
        """Stop listening, let running commands answer for a moment, give the place back."""
        if self._server is None:
            return
        self._server.close()
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=CLOSE_GRACE_S)
            for client in late:
                client.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        self._place.leave()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = _peer_fault(writer.get_extra_info("socket"))
        if len(self._clients) >= CLIENT_LIMIT:
            fault = f"{CLIENT_LIMIT} commands are under way already: try again later"
        if fault:
            writer.write(protocol.encode(_failure(fault)))  # one short line always fits into the kernel's buffer
            writer.close()
            return
        self._attend(self._serve(self._reply(reader, writer), writer))

    def _attend(self, service: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(service)
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _listen(self, listener: socket.socket) -> None:
        # Not start_unix_server, which from Python 3.13 on removes the socket's file when it closes: that is the place's part.
        self._server = await asyncio.start_server(
            self._accept, sock=listener, limit=protocol.REQUEST_LIMIT_BYTES, backlog=CLIENT_LIMIT
        )

    async def _serve(self, answering: Coroutine[Any, Any, protocol.Reply | None], writer: asyncio.StreamWriter) -> None:
        try:
            reply = await answering
            if reply is not None:
                await _send(reply, writer)
        except (OSError, TimeoutError):
            writer.transport.abort()  # the client went away or does not take its answer; there is nobody to tell
        except asyncio.CancelledError:
            writer.transport.abort()  # the port closes: a slow reader must not hold it up
            raise
        finally:
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> protocol.Reply | None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                line = await reader.readline()
        except TimeoutError:
            return _failure(f"no complete request within {DEADLINE_S:g} s")
        except ValueError:
            return _failure(f"a request has at most {protocol.REQUEST_LIMIT_BYTES} bytes")
        if not line:
            return None  # only a look whether somebody listens
        request = _parse(line)
        if isinstance(request, protocol.Reply):
            return request
        return await self._carry_out(
            request.command,
            lambda tell: self._handle(request.command, request.arguments, tell),
            Teller(reader, writer),
        )

    async def _carry_out(self, command: str, work: Work, tell: Teller) -> protocol.Reply:
        client = asyncio.current_task()
        if client is None:
            raise AssertionError("runs in the task of its client")
        self._asked[client] = command, tell
        try:
            return protocol.Reply(ok=True, answer=await work(tell))
        except RqsupError as fault:
            return _failure(str(fault), _exit_code(fault))
        except Exception as fault:  # noqa: BLE001 - a fault in one command must not end the master; logged with its stack
            _log.exception("the command %s failed", command)
            return _failure(f"{command} failed inside the master ({fault!r}): its log says where")
        finally:
            del self._asked[client]


def _parse(line: bytes) -> protocol.Request | protocol.Reply:
    try:
        request = msgspec.json.decode(line, type=protocol.Request)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        return _failure(f"no request ({fault}): one JSON object per line")
    if request.v != protocol.VERSION:
        return _failure(
            f"this master speaks version {protocol.VERSION} of the control protocol, the command {request.v}: "
            "use the rqsup that the master was started with"
        )
    return request


def _failure(text: str, code: int = exits.FAILURE) -> protocol.Reply:
    return protocol.Reply(ok=False, error=text, exit=code)


def _exit_code(fault: RqsupError) -> int:
    if isinstance(fault, MasterRefused):
        return fault.exit
    return exits.CONFIG if isinstance(fault, ConfigError | AppImportError) else exits.FAILURE


def _peer_fault(connection: Any) -> str:
    """Why this client may not command us; empty when it may. The kernel vouches for its user."""
    uid = _peer_uid(connection)
    if uid in {0, os.geteuid()}:
        return ""
    return f"user {uid} may not command this master: run the command as user {os.geteuid()} or root"


def _peer_uid(connection: Any) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, protocol.CREDENTIALS.size)
    return int(protocol.CREDENTIALS.unpack(raw)[1])


async def _send(reply: protocol.Reply, writer: asyncio.StreamWriter) -> None:
    writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits until the kernel has taken all of it
    async with asyncio.timeout(DEADLINE_S):
        writer.write(protocol.encode(reply))
        await writer.drain()
