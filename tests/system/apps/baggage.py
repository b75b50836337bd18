"""An application whose jobs tell what their worker has loaded, and what it loaded after it was forked."""

from __future__ import annotations

import os
import sys

from rqsup import Backoff, task

#: Modules that this process had right after its fork.
_at_fork: set[str] = set()


def _look() -> None:
    _at_fork.clear()
    _at_fork.update(sys.modules)


os.register_at_fork(after_in_child=_look)


@task(name="baggage.nothing")
def nothing(text: str) -> str:
    """The simplest job."""
    return text


@task(name="baggage.fail", max_attempts=1, backoff=Backoff(first_s=0.01))
def fail() -> None:
    """A job that ends in an error."""
    raise ValueError("on purpose")


@task(name="baggage.apart", isolation="fork")
def apart() -> int:
    """A job in a process of its own."""
    return os.getpid()


@task(name="baggage.told")
def told() -> dict[str, list[str]]:
    """All modules, and those that came after the fork."""
    return {"loaded": sorted(sys.modules), "late": sorted(set(sys.modules) - _at_fork)}
