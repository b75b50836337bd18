"""Keeps secrets out of logs, reports and errors."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit


def redact_url(url: str) -> str:
    """The URL without its password, for logs and reports.

    >>> redact_url("redis://app:hunter2@db:6379/0")
    'redis://app:***@db:6379/0'
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "***"  # a password may stand anywhere in an address that cannot be read
    if "password" in parts.query:
        query = [(key, "***" if "password" in key else value) for key, value in parse_qsl(parts.query)]
        parts = parts._replace(query=urlencode(query, safe="*/"))
    return urlunsplit(_without_password(parts))


def _without_password(parts: SplitResult) -> SplitResult:
    if parts.password is None:
        return parts
    userinfo, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{userinfo.partition(':')[0]}:***@{place}")
