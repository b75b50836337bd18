"""Reaching Redis: how often it is tried, what a server must be, and what is said when it is not there. Without redis-py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rqsup.errors import RedisUnavailable, ServerUnfit
from rqsup.redact import redact_url
from rqsup.settings import RedisSettings
from rqsup.store.replies import is_login_refused

#: Oldest server that has LMOVE, BLMOVE and LPOS.
MINIMUM_SERVER = (6, 2)
#: Longest pause between two tries to connect at start, seconds.
CONNECT_PAUSE_CAP_S = 30.0


def connect_pauses(tries: int) -> Iterator[tuple[int, float | None]]:
    """Number of each try to connect, and the pause in seconds after it; None after the last.

    >>> list(connect_pauses(3))
    [(1, 1.0), (2, 2.0), (3, None)]
    """
    for attempt in range(1, tries):
        yield attempt, min(2.0 ** (attempt - 1), CONNECT_PAUSE_CAP_S)
    yield tries, None


def words(fault: BaseException) -> str:
    """What an error says, fit to stand inside a sentence.

    >>> words(ConnectionError("Connection refused."))
    'Connection refused'
    """
    silence = "no answer in time" if isinstance(fault, TimeoutError) else type(fault).__name__
    return str(fault).rstrip(". ") or silence


def login_refused(settings: RedisSettings, fault: BaseException) -> RedisUnavailable:
    """The error for a wrong user or password: trying again would not help."""
    return RedisUnavailable(
        f"Redis at {redact_url(settings.url)} refuses the login ({words(fault)}): check redis.username and redis.password_file"
    )


def never_answered(settings: RedisSettings, fault: BaseException) -> RedisUnavailable:
    """The error after the last try."""
    return RedisUnavailable(
        f"no Redis at {redact_url(settings.url)} after {settings.connect_tries} tries ({words(fault)}): start one there, "
        "set redis.url (or RQSUP_REDIS__URL), or try `rqsup demo`, which brings its own"
    )


def no_answer(settings: RedisSettings, fault: BaseException) -> RedisUnavailable:
    """The error for one command that Redis did not answer."""
    if is_login_refused(fault):
        return login_refused(settings, fault)
    return RedisUnavailable(
        f"Redis at {redact_url(settings.url)} does not answer ({words(fault)}): start it, or set redis.url"
    )


def fate_unknown(settings: RedisSettings, fault: RedisUnavailable) -> RedisUnavailable:
    """The error for a client's call without an answer: it may have been carried out."""
    return RedisUnavailable(
        f"{no_answer(settings, fault.__cause__ or fault)}. If this was an enqueue, its fate is unknown: "
        "the same job_id again makes no second job"
    )


def check_server(info: dict[str, Any]) -> tuple[int, int]:
    """Judge a server by its INFO; return its version.

    Raises:
        ServerUnfit: it is too old, or its policy evicts keys, and so would lose jobs silently.
    """
    version = parse_version(str(info.get("redis_version", "0.0")))
    if version < MINIMUM_SERVER:
        raise ServerUnfit(f"Redis {info.get('redis_version')} is too old: rqsup needs 6.2 or later")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys"):
        raise ServerUnfit(
            f"this Redis evicts keys when it is full (maxmemory-policy {policy}), and with them jobs: "
            "run `redis-cli config set maxmemory-policy noeviction` and put it into redis.conf"
        )
    return version


def persistence_warning(info: dict[str, Any]) -> str | None:
    """What a crash of this server would lose, in words; None when jobs survive it."""
    if int(info.get("aof_enabled", 0)):
        return None
    return "Redis has no append-only file: if it crashes, accepted jobs are lost; set `appendonly yes`"


def parse_version(text: str) -> tuple[int, int]:
    """(major, minor) of a version text such as `7.0.15`."""
    major, _, rest = text.partition(".")
    return int(major), int(rest.partition(".")[0] or 0)
