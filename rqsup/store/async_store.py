"""Runs calls on an asyncio client: the master's way to Redis. Each call has a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.exceptions

from rqsup.errors import RedisUnavailable
from rqsup.redact import redact_url
from rqsup.settings import RedisSettings
from rqsup.store.connection import (
    UNAVAILABLE,
    check_server,
    connect_async,
    connect_pauses,
    login_refused,
    never_answered,
    parse_version,
)  # fmt: skip
from rqsup.store.scripts import FLAGS_SINCE, Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")


class AsyncStore:
    """One asyncio client. Every fault is a RedisUnavailable; the next call connects anew.

    `fault` is why the last call failed, empty while Redis answers.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self.client = connect_async(settings)
        self.fault = "not asked yet"
        self.url = redact_url(settings.url)
        self._flags: bool | None = None

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
        info: dict[str, Any] = await self._bounded(self.client.info())
        self._flags = check_server(info) >= FLAGS_SINCE
        return info

    async def await_server(self, tell: Callable[[str, float], None]) -> dict[str, Any]:
        """Wait until Redis answers, and return its INFO; tries and pauses as in `connection.await_server`.

        Args:
            tell: takes what failed, and the pause until the next try in seconds.

        Raises:
            RedisUnavailable: it never answered, or refused the user or password.
            ServerUnfit: it answers but must not be used.
        """
        for attempt, pause_s in connect_pauses(self._settings.connect_tries):
            try:
                return await self.check()
            except RedisUnavailable as fault:
                if isinstance(fault.__cause__, redis.exceptions.AuthenticationError):
                    raise login_refused(self._settings, fault.__cause__) from fault
                if pause_s is None:
                    raise never_answered(self._settings, fault.__cause__ or fault) from fault
                tell(f"{fault}; try {attempt} of {self._settings.connect_tries}, next in {pause_s:g} s", pause_s)
                await asyncio.sleep(pause_s)
        raise AssertionError("unreachable: the last try returns or raises")

    async def run(self, call: Call[T]) -> T:
        """Send one call and return its answer.

        Raises:
            RedisUnavailable: no answer in time, or an error; whether the script ran is unknown.
        """
        flags = await self._server_has_flags()
        command = call.command(flags=flags)
        try:
            reply = await self._bounded(self.client.execute_command(*command))
        except _NoScript:
            await self._bounded(self.client.script_load(call.script.variant(flags=flags)[1]))
            reply = await self._bounded(self.client.execute_command(*command))
        return call.decode(reply)

    async def run_many(self, calls: Sequence[Call[T]]) -> list[T | redis.exceptions.ResponseError]:
        """Send calls in one round trip; an answer that is an error stands in its place, not raised.

        Raises:
            RedisUnavailable: no answer in time; whether the scripts ran is unknown.
        """
        replies = await self._pipeline(calls)
        unloaded = [number for number, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unloaded:
            # The server was new, or lost its scripts meanwhile; those calls wrote nothing.
            again = [calls[number] for number in unloaded]
            flags = await self._server_has_flags()
            for source in {call.script.variant(flags=flags)[1] for call in again}:
                await self._bounded(self.client.script_load(source))
            for number, reply in zip(unloaded, await self._pipeline(again), strict=True):
                replies[number] = reply
        return [
            reply if isinstance(reply, redis.exceptions.ResponseError) else call.decode(reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    async def hash(self, key: str) -> dict[bytes, bytes]:
        """All fields of a hash. Raises as `run`."""
        fields: dict[bytes, bytes] = await self._bounded(self.client.hgetall(key))
        return fields

    async def _pipeline(self, calls: Sequence[Call[T]]) -> list[Any]:
        flags = await self._server_has_flags()
        async with self.client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*call.command(flags=flags))
            replies: list[Any] = await self._bounded(pipeline.execute(raise_on_error=False))
        return replies

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Send one plain command and return its reply. Raises as `run`."""
        return await self._bounded(self.client.execute_command(*arguments))

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()

    async def _server_has_flags(self) -> bool:
        if self._flags is None:
            info = await self._bounded(self.client.info("server"))
            self._flags = parse_version(str(info["redis_version"])) >= FLAGS_SINCE
        return self._flags

    async def _bounded(self, awaitable: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._settings.socket_timeout):
                reply = await awaitable
        except redis.exceptions.NoScriptError as fault:
            raise _NoScript from fault
        except (*UNAVAILABLE, TimeoutError, redis.exceptions.RedisError) as fault:
            self.fault = (
                f"{type(fault).__name__}: {fault}"
                if str(fault)
                else f"no answer in {self._settings.socket_timeout:g} s"
            )
            raise RedisUnavailable(f"Redis at {self.url}: {self.fault}") from fault
        self.fault = ""
        return reply


class _NoScript(Exception):
    """The server lost its scripts (restart, failover); EVALSHA wrote nothing."""
