"""An asyncio client's one connection: concurrent calls share it, and it is opened when it is needed. No redis-py."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from rqsup.errors import RedisUnavailable, WrongEventLoop
from rqsup.redact import redact_url
from rqsup.settings import RedisSettings
from rqsup.store.address import Address, make_tls, read_address
from rqsup.store.pipe import Pipe
from rqsup.store.replies import is_unloaded, read_info
from rqsup.store.scripts import FLAGS_SINCE, Argument, script
from rqsup.store.sendable import Sendable


class AsyncWire:
    """One connection for all tasks of one event loop. Every fault of it is a RedisUnavailable; the next call connects.

    An answer that is an error is returned, not raised. Nothing is repeated by itself, except a call of
    which the server said that it did not know the script.
    """

    def __init__(self, settings: RedisSettings, *, name: str = "", scripts: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._name = name
        self._scripts = scripts
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pipe: Pipe | None = None
        self._opening: asyncio.Task[Pipe] | None = None
        self._flags = True
        self.url = redact_url(settings.url)

    async def run(self, call: Sendable) -> Any:
        """Send one call and return its answer, undecoded.

        Raises:
            RedisUnavailable: no answer in `redis.socket_timeout`; whether it was carried out is unknown.
            WrongEventLoop: this loop is not the one that it is used in.
        """
        return (await self.run_many((call,)))[0]

    async def run_many(self, calls: Sequence[Sendable]) -> list[Any]:
        """Send calls together, and return their answers. Raises as `run`."""
        if not calls:
            return []
        pipe = await self._enter(len(calls))
        flags = self._flags
        answers = await pipe.post(b"".join([call.packed(flags=flags) for call in calls]), len(calls))
        unloaded = [number for number, answer in enumerate(answers) if is_unloaded(answer)]
        if unloaded:
            again = await self._again([calls[number] for number in unloaded])
            for number, answer in zip(unloaded, again, strict=True):
                answers[number] = answer
        return answers

    async def command(self, *arguments: Argument) -> Any:
        """Send one plain command, and return its answer. Raises as `run`."""
        # First: room that was given and not used would never be free again.
        packed = hiredis.pack_command(cast(Any, arguments))
        pipe = await self._enter(1)
        return (await pipe.post(packed, 1))[0]

    async def close(self) -> None:
        """Wait for the answers that are due, and close the connection. The next call opens another, in any loop."""
        pipe, opening, self._pipe, self._opening = self._pipe, self._opening, None, None
        loop, self._loop = self._loop, None
        if loop is None or loop.is_closed():
            return
        if loop is not asyncio.get_running_loop():
            self._loop, self._pipe, self._opening = loop, pipe, opening
            raise _wrong_loop()
        if opening is not None:
            opening.cancel()
        if pipe is not None:
            await pipe.close()

    async def _enter(self, count: int) -> Pipe:
        """An open connection with room for so many calls, which then have to be posted."""
        while True:
            pipe = self._pipe
            if pipe is None or pipe.fault is not None or self._loop is not asyncio.get_running_loop():
                pipe = await self._open_once()
            await pipe.room(count)
            if pipe.fault is None:
                return pipe

    async def _again(self, calls: Sequence[Sendable]) -> list[Any]:
        """Load the scripts that the server does not know, and send their calls again: they wrote nothing."""
        sources = {call.script.variant(flags=self._flags)[1] for call in calls}
        loads = [hiredis.pack_command(cast(Any, ("SCRIPT", "LOAD", source))) for source in sources]
        count = len(loads) + len(calls)
        pipe = await self._enter(count)
        answers = await pipe.post(b"".join([*loads, *(call.packed(flags=self._flags) for call in calls)]), count)
        return answers[len(loads) :]

    async def _open_once(self) -> Pipe:
        """Open the connection; callers that come meanwhile wait for the same one."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise _wrong_loop()
        if self._opening is None:
            self._opening = loop.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        try:
            # One caller's end must not end the connecting of the others.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if not opening.cancelled() or _is_cancelled():
                raise
            # By `close`: whoever takes this for its own cancellation would end without a word.
            raise RedisUnavailable("the client was closed") from None

    def _opened(self, opening: asyncio.Task[Pipe]) -> None:
        if self._opening is opening:
            self._opening = None
        if not opening.cancelled():
            opening.exception()  # told to those who wait; without any, nobody has to know

    async def _open(self) -> Pipe:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                pipe = await self._dial(read_address(self._settings))
        except TimeoutError as fault:
            raise RedisUnavailable(f"no connection to Redis in {self._settings.connect_timeout:g} s") from fault
        except OSError as fault:
            raise RedisUnavailable(str(fault)) from fault
        self._pipe = pipe
        return pipe

    async def _dial(self, address: Address) -> Pipe:
        loop = asyncio.get_running_loop()
        make = functools.partial(Pipe, loop, self._settings.socket_timeout)
        tls = make_tls(self._settings) if address.tls else None
        if address.path:
            _, pipe = await loop.create_unix_connection(make, address.path)
        else:
            transport, pipe = await loop.create_connection(make, address.host, address.port, ssl=tls)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            await self._introduce(pipe, address)
        except BaseException:
            pipe.fail("the connection was given up")
            raise
        return pipe

    async def _introduce(self, pipe: Pipe, address: Address) -> None:
        """Log in, name the connection, learn the server's version, and load the scripts."""
        greeting: list[tuple[Argument, ...]] = [*address.login()]
        if self._name:
            greeting.append(("CLIENT", "SETNAME", self._name))
        answers = await _ask(pipe, *greeting, ("INFO", "server"))
        faults = [answer for answer in answers if isinstance(answer, hiredis.ReplyError)]
        if faults:
            raise RedisUnavailable(str(faults[0])) from faults[0]
        self._flags = _version(answers[-1]) >= FLAGS_SINCE
        sources = [script(name).variant(flags=self._flags)[1] for name in self._scripts]
        if sources:
            await _ask(pipe, *(("SCRIPT", "LOAD", source) for source in sources))


async def _ask(pipe: Pipe, *commands: tuple[Argument, ...]) -> list[Any]:
    await pipe.room(len(commands))
    if pipe.fault is not None:
        raise RedisUnavailable(pipe.fault)
    return await pipe.post(b"".join(hiredis.pack_command(cast(Any, one)) for one in commands), len(commands))


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _version(info: bytes) -> tuple[int, ...]:
    version = read_info(info).get("redis_version", "0.0")
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _wrong_loop() -> WrongEventLoop:
    return WrongEventLoop(
        "this AsyncClient belongs to another event loop: make one in each loop, or `await client.close()` there first"
    )
