"""The logger: an event with fields, handed to one outlet that `rqsup.logs` sets up.

Our own, because the packages made for it load a terminal library and 5 MiB with it into each master and zygote.
"""

from __future__ import annotations

import datetime as dt
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

#: Names of levels, and their weight as in the standard library's logging.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

Fields = dict[str, Any]


class Writer(Protocol):
    """Takes whole lines."""

    def write(self, line: bytes, /) -> None:
        """Write a line."""


class Outlet:
    """Where all loggers of this process lead: set up again, it holds for all of them.

    Args:
        render: makes one line out of an event's fields.
        writer: takes the line.
    """

    def __init__(self, render: Callable[[Fields], bytes], writer: Writer) -> None:
        self.render = render
        self.writer = writer
        #: Weight below which events are dropped.
        self.threshold = LEVELS["info"]
        #: Whether an event gets the time; journald has its own.
        self.timed = True


class Logger:
    """Writes events under a name, with constant fields."""

    __slots__ = ("_fields", "_name", "_outlet")

    def __init__(self, outlet: Outlet, name: str, fields: Fields) -> None:
        self._outlet = outlet
        self._name = name
        self._fields = fields

    def bind(self, **fields: Any) -> Logger:
        """The same logger with more constant fields."""
        return Logger(self._outlet, self._name, self._fields | fields)

    def debug(self, event: str, **fields: Any) -> None:
        """Write an event that only a search for an error needs."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write an event of normal operation."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write an event that somebody should look at some time."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write an event that somebody should look at."""
        self._write("error", event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Write an event that somebody should look at now."""
        self._write("critical", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Write an error with the traceback of the exception that is being handled."""
        self._write("error", event, {"exc_info": True} | fields)

    def _write(self, level: str, event: str, fields: Fields) -> None:
        outlet = self._outlet
        if LEVELS[level] < outlet.threshold:
            return
        told: Fields = self._fields | fields
        fault = _exception(told.pop("exc_info", None))
        if fault is not None:
            told["exception"] = "".join(traceback.format_exception(fault)).rstrip("\n")
        told |= {"logger": self._name, "event": event, "level": level}
        if outlet.timed:
            told["time"] = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        outlet.writer.write(outlet.render(told))


def _exception(given: object) -> BaseException | None:
    """The exception meant by `exc_info`: itself, a triple with it, or True = the one being handled."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        middle = given[1] if len(given) == 3 else None
        return middle if isinstance(middle, BaseException) else None
    return sys.exception() if given else None
