"""Listens to one channel, on a connection of its own, without redis-py."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, cast

import hiredis

from rqsup.errors import RedisRefused, RedisUnavailable
from rqsup.store.address import Address, make_tls, read_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from rqsup.settings import RedisSettings

#: Bytes read at once.
READ_BYTES = 1 << 12
#: Seconds of silence after which the kernel asks whether the other host is still there, between two questions, and how many: a
#: listener sends nothing itself, so nothing else would tell it of a connection that is cut without a word.
ASK_AFTER_S, ASK_EVERY_S, QUESTIONS = 5, 2, 3


async def listen(settings: RedisSettings, channel: str, heard: Callable[[], None]) -> None:
    """Call `heard` when the server lets us listen, and at each message, until the connection ends.

    Raises:
        RedisUnavailable: it ended, or (RedisRefused) the server refuses us.
    """
    try:
        async with asyncio.timeout(settings.connect_timeout):
            reader, writer = await _dial(settings, address := read_address(settings))
        try:
            replies = _Replies(reader)
            async with asyncio.timeout(settings.connect_timeout):
                await _subscribe(replies, writer, [*address.login(), ("SUBSCRIBE", channel)])
            while True:
                heard()
                await replies.next()
        finally:
            writer.transport.abort()
    except (OSError, TimeoutError, hiredis.ProtocolError) as fault:
        raise RedisUnavailable(f"no channel from Redis: {fault}") from fault


async def _dial(settings: RedisSettings, address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.path:
        return await asyncio.open_unix_connection(address.path)
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=make_tls(settings) if address.tls else None
    )
    keep_alive(writer.get_extra_info("socket"))
    return reader, writer


def keep_alive(connection: Any) -> None:
    """Have the kernel find out, in about 10 seconds, that the other host is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, ASK_AFTER_S), (socket.TCP_KEEPINTVL, ASK_EVERY_S), (socket.TCP_KEEPCNT, QUESTIONS)
    ):  # fmt: skip
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def _subscribe(replies: _Replies, writer: asyncio.StreamWriter, opening: list[tuple[str, ...]]) -> None:
    writer.write(b"".join(hiredis.pack_command(cast("Any", command)) for command in opening))
    for _ in opening:
        # The answer to the last one: only then is it certain that the server lets us listen.
        await replies.next()


class _Replies:
    """What comes from a server, reply by reply."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = hiredis.Reader()

    async def next(self) -> Any:
        """The next one."""
        while (reply := self._parser.gets()) is False:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise RedisUnavailable("Redis closed the channel")
            self._parser.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise RedisRefused(str(reply)) from reply
        return reply
