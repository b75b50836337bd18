"""Connections to Redis: one place that knows URLs, passwords, TLS, timeouts and server versions."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import redis
import redis.exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqsup.errors import RedisUnavailable
from rqsup.redact import redact_url
from rqsup.settings import RedisSettings
from rqsup.store import reach
from rqsup.store.address import read_password
from rqsup.store.reach import check_server, connect_pauses, login_refused, never_answered, parse_version, words
from rqsup.store.scripts import FLAGS_SINCE, Call

T = TypeVar("T")

#: Errors that mean "Redis is away or not ready": worth another try, never the job's fault.
UNAVAILABLE = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)


def connection_options(settings: RedisSettings) -> dict[str, Any]:
    """Keyword arguments for redis-py.

    Automatic retries are off: redis-py would repeat a command whose reply was lost, and so a second
    copy of a job was left behind. rqsup repeats by itself, and only what is safe to repeat.
    """
    options: dict[str, Any] = {
        "socket_timeout": settings.socket_timeout,
        "socket_connect_timeout": settings.connect_timeout,
        "socket_keepalive": True,
        "protocol": 2,
    } | _introduction()
    password = read_password(settings)
    if password is not None:
        options["password"] = password
    if settings.username:
        options["username"] = settings.username
    if settings.url.startswith("unix"):
        del options["socket_keepalive"]
    if settings.url.startswith("rediss"):
        options |= {
            "ssl_cert_reqs": "required" if settings.tls_verify else "none",
            "ssl_check_hostname": settings.tls_verify,
            "ssl_ca_certs": settings.tls_ca_file or None,
            "ssl_certfile": settings.tls_cert_file or None,
            "ssl_keyfile": settings.tls_key_file or None,
        }
    return options


@cache
def _introduction() -> dict[str, Any]:
    """How redis-py introduces itself: found out once for all connections, and before a fork for all workers.

    It would read and parse its own package's metadata for each connection.
    """
    try:
        from redis.driver_info import DriverInfo
    except ImportError:  # redis-py before 7.2, which has no such option
        return {}
    return {"driver_info": DriverInfo()}


def connect(settings: RedisSettings) -> redis.Redis:
    """A blocking client with its own pool; it opens no connection yet. Safe to share between threads."""
    pool = redis.BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.pool_size or 4 * (os.cpu_count() or 1),
        timeout=settings.connect_timeout,
        retry=Retry(NoBackoff(), 0),
        **connection_options(settings),
    )
    return redis.Redis(connection_pool=pool)


def await_server(
    client: redis.Redis,
    settings: RedisSettings,
    log: Callable[[str], None],
    pause: Callable[[float], Any] = time.sleep,
) -> tuple[int, int]:
    """Wait until Redis answers, and return its version (major, minor).

    Tries `connect_tries` times with pauses of 1, 2, 4, 8, 16 … s, each told to `log`.

    Raises:
        RedisUnavailable: it never answered, or refused the user or password.
        ServerUnfit: it answers but must not be used.
    """
    for attempt, pause_s in connect_pauses(settings.connect_tries):
        try:
            return check_server(client.info())
        except redis.exceptions.AuthenticationError as fault:
            raise login_refused(settings, fault) from fault
        except (*UNAVAILABLE, redis.exceptions.RedisError) as fault:
            if pause_s is None:
                raise never_answered(settings, fault) from fault
            log(f"Redis at {redact_url(settings.url)} does not answer ({words(fault)}); try {attempt} of "
                f"{settings.connect_tries}, next in {pause_s:g} s")  # fmt: skip
            pause(pause_s)
    raise AssertionError("unreachable: the last try returns or raises")


def no_answer(settings: RedisSettings, fault: BaseException) -> RedisUnavailable:
    """The error for one command that Redis did not answer, told by redis-py."""
    if isinstance(fault, redis.exceptions.AuthenticationError):
        return login_refused(settings, fault)
    return reach.no_answer(settings, fault)


class Store:
    """Runs calls on a blocking client. Safe to share between threads."""

    def __init__(self, client: redis.Redis) -> None:
        # redis-py types each reply as the union of all that its options allow; casts at each call would
        # only repeat what the command's name says.
        self.client: Any = client
        self._flags: bool | None = None

    def run(self, call: Call[T]) -> T:
        """Send one call and return its answer."""
        flags = self._server_has_flags()
        try:
            reply = self.client.execute_command(*call.command(flags=flags))
        except redis.exceptions.NoScriptError:
            # A restart or a failover emptied the server's script cache; EVALSHA wrote nothing.
            self.client.script_load(call.script.variant(flags=flags)[1])
            reply = self.client.execute_command(*call.command(flags=flags))
        return call.decode(reply)

    def run_many(self, calls: list[Call[T]]) -> list[T | redis.exceptions.ResponseError]:
        """Send calls in one round trip; an answer that is an error stands in its place, not raised."""
        if not calls:
            return []
        replies = self._pipeline(calls)
        unloaded = [number for number, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unloaded:
            # The server was new, or lost its scripts meanwhile; those calls wrote nothing.
            again = [calls[number] for number in unloaded]
            for source in {call.script.variant(flags=self._server_has_flags())[1] for call in again}:
                self.client.script_load(source)
            for number, reply in zip(unloaded, self._pipeline(again), strict=True):
                replies[number] = reply
        return [
            reply if isinstance(reply, redis.exceptions.ResponseError) else call.decode(reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    def _pipeline(self, calls: list[Call[T]]) -> list[Any]:
        flags = self._server_has_flags()
        with self.client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*call.command(flags=flags))
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def _server_has_flags(self) -> bool:
        if self._flags is None:
            version = parse_version(str(self.client.info("server")["redis_version"]))
            self._flags = version >= FLAGS_SINCE
        return self._flags
