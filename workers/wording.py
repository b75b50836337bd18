"""A job's error in words, for its record."""

from __future__ import annotations

import traceback

#: Most characters of a traceback kept with a job: its end, where the error is.
TRACEBACK_CHARS = 16_000
#: Most characters of an error's message.
MESSAGE_CHARS = 2_000


def describe(fault: BaseException) -> tuple[str, str]:
    """Message and traceback of a job's error. The error's own code may run here, and fail in turn."""
    try:
        stack = "".join(traceback.format_exception(fault))
        return plain(str(fault)[:MESSAGE_CHARS]), plain(stack[-TRACEBACK_CHARS:])
    except BaseException as second:  # noqa: BLE001 - whatever an error's __str__ does, the attempt has ended
        return f"(its message cannot be read: {type(second).__name__})", ""


def plain(text: str) -> str:
    """Text that JSON can hold: half of a surrogate pair, as in odd file names, is written out."""
    return text.encode("utf-8", "backslashreplace").decode()
