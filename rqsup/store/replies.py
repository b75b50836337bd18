"""What an answer that is an error says. Imports no redis-py: both of the client's connections use it."""

from __future__ import annotations

from typing import Any

import hiredis

#: First words of errors that mean "not now": the server starts, fails over, waits for its script or knows us no more.
NOT_READY = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "READONLY", "NOAUTH", "WRONGPASS")

#: First words of errors in answer to AUTH, and to whatever is asked without it.
LOGIN_REFUSED = ("WRONGPASS", "NOAUTH", "ERR AUTH", "ERR invalid password", "ERR Client sent AUTH")


def is_unloaded(reply: Any) -> bool:
    """True when the server does not know the script (a restart, a failover); nothing was written."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def is_not_ready(fault: hiredis.ReplyError) -> bool:
    """True when the server refuses whatever is asked, for now."""
    return str(fault).startswith(NOT_READY)


def is_login_refused(fault: BaseException) -> bool:
    """True when the server knows not this user or password: trying again would not help."""
    return isinstance(fault, hiredis.ReplyError) and str(fault).startswith(LOGIN_REFUSED)


def root_cause(fault: BaseException) -> BaseException:
    """What it began with."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return fault


def read_info(reply: bytes) -> dict[str, str]:
    """The answer to INFO as names and values."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
