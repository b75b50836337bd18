"""Runs calls on an asyncio connection: the master's way to Redis, without redis-py. Each call has a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import hiredis

from rqsup.errors import LoginRefused, RedisRefused, RedisUnavailable
from rqsup.store.async_wire import AsyncWire
from rqsup.store.listening import listen
from rqsup.store.reach import check_server, connect_pauses, login_refused, never_answered
from rqsup.store.replies import is_login_refused, read_info

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rqsup.settings import RedisSettings
    from rqsup.store.scripts import Call

T = TypeVar("T")


class AsyncStore:
    """One asyncio connection. Every fault is a RedisUnavailable; the next call connects anew.

    `fault` is why the last call failed, empty while Redis answers.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._wire = AsyncWire(settings)
        self.fault = "not asked yet"
        self.url = self._wire.url

    @property
    def ok(self) -> bool:
        """True when the last call was answered."""
        return not self.fault

    async def check(self) -> dict[str, Any]:
        """Ask the server who it is, and return its INFO.

        Raises:
            RedisUnavailable: it does not answer.
            ServerUnfit: it must not be used.
        """
        info = read_info(await self.command("INFO"))
        check_server(info)
        return info

    async def await_server(self, tell: Callable[[str, float], None]) -> dict[str, Any]:
        """Wait until Redis answers, and return its INFO; tries and pauses as in `reach.connect_pauses`.

        Args:
            tell: takes what failed, and the pause until the next try in seconds.

        Raises:
            RedisUnavailable: it never answered, or refused the user or password.
            ServerUnfit: it answers but must not be used.
        """
        for attempt, pause_s in connect_pauses(self._settings.connect_tries):
            try:
                return await self.check()
            except LoginRefused as fault:
                raise login_refused(self._settings, fault.__cause__ or fault) from fault
            except RedisUnavailable as fault:
                if pause_s is None:
                    raise never_answered(self._settings, fault.__cause__ or fault) from fault
                tell(f"{fault}; try {attempt} of {self._settings.connect_tries}, next in {pause_s:g} s", pause_s)
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the last try returns or raises")

    async def run(self, call: Call[T]) -> T:
        """Send one call and return its answer.

        Raises:
            RedisUnavailable: no answer in time, or (RedisRefused) an error; whether the script ran is unknown.
        """
        return call.decode(self._accepted(await self._bounded(self._wire.run(call))))

    async def run_many(self, calls: Sequence[Call[T]]) -> list[T | RedisRefused]:
        """Send calls in one round trip; an answer that is an error stands in its place, not raised.

        Raises:
            RedisUnavailable: no answer in time; whether the scripts ran is unknown.
        """
        replies = await self._bounded(self._wire.run_many(calls))
        return [
            self._refusal(reply) if isinstance(reply, hiredis.ReplyError) else call.decode(reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    async def hash(self, key: str) -> dict[bytes, bytes]:
        """All fields of a hash. Raises as `run`."""
        flat = await self.command("HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Send one plain command and return its reply. Raises as `run`."""
        return self._accepted(await self._bounded(self._wire.command(*arguments)))

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` when the server lets us listen to a channel, and at each message, until the connection ends.

        Raises:
            RedisUnavailable: it ended, or (RedisRefused) this user may not listen.
        """
        await listen(self._settings, channel, heard)

    async def close(self) -> None:
        """Close the connection."""
        await self._wire.close()

    async def _bounded(self, awaitable: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._settings.socket_timeout):
                reply = await awaitable
        except TimeoutError as fault:
            self.fault = f"no answer in {self._settings.socket_timeout:g} s"
            raise RedisUnavailable(f"Redis at {self.url}: {self.fault}") from fault
        except RedisUnavailable as fault:
            if isinstance(fault.__cause__, hiredis.ReplyError):
                raise self._failed(fault.__cause__) from fault.__cause__
            self.fault = str(fault)
            raise RedisUnavailable(f"Redis at {self.url}: {fault}") from (fault.__cause__ or fault)
        self.fault = ""
        return reply

    def _accepted(self, reply: Any) -> Any:
        if isinstance(reply, hiredis.ReplyError):
            raise self._failed(reply) from reply
        return reply

    def _failed(self, reply: hiredis.ReplyError) -> RedisRefused:
        self.fault = str(reply)
        return self._refusal(reply)

    def _refusal(self, reply: hiredis.ReplyError) -> RedisRefused:
        kind = LoginRefused if is_login_refused(reply) else RedisRefused
        return kind(f"Redis at {self.url}: {reply}")
