"""The wire format of a job: documented JSON, so that any language can enqueue (docs/envelope.md).

Nothing is ever unpickled, and no name from the wire is imported: a task name is only looked up
among the tasks that the application registered.
"""

from __future__ import annotations

import math
import os
import re
import time
from functools import lru_cache
from typing import Any

import msgspec

from rqsup.errors import EnvelopeError, InvalidJob, PayloadTooLarge
from rqsup.job import LEVEL_LABELS, Level

#: Version of the format; a reader refuses what is newer than it knows.
VERSION = 1
#: Alphabet of ids, queue names and task names: safe in keys, logs, process titles and shells.
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

#: Random parts of ids that are drawn at once.
DRAWN = 64


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One job as it travels: who it is, what to call, with what, and under which limits."""

    id: str
    task: str
    queue: str = "default"
    level: str = "normal"
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    #: Attempts that may end in an error; None = as the task declares.
    max_attempts: int | None = None
    #: Soft timeout of one attempt in seconds; None = as the task declares.
    timeout_s: float | None = None
    v: int = VERSION


_LEVELS = frozenset(LEVEL_LABELS)
#: A random hexadecimal digit to one of the four that name the variant in a UUID.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
#: Random parts drawn ahead. Each is popped once, by one thread; a forked child draws its own.
_tails: list[str] = []
os.register_at_fork(after_in_child=_tails.clear)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


def new_id() -> str:
    """A UUIDv7 (RFC 9562): sortable by time, made by the client so that a repeat is recognised."""
    stamp = _stamp(time.time_ns() // 1_000_000)
    try:
        return stamp + _tails.pop()
    except IndexError:
        _tails.extend(_draw())
        return stamp + _draw(1)[0]


@lru_cache(maxsize=1)
def _stamp(now_ms: int) -> str:
    """How an id begins that is made in this millisecond."""
    stamp = f"{now_ms:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7"


def _draw(count: int = DRAWN) -> list[str]:
    """The random parts of so many ids: one system call for all, which costs as much as the rest of an id."""
    noise = os.urandom(10 * count).hex()
    starts = range(0, 20 * count, 20)
    return [
        f"{noise[at : at + 3]}-{_VARIANT[noise[at + 3]]}{noise[at + 4 : at + 7]}-{noise[at + 7 : at + 19]}"
        for at in starts
    ]


def check_name(kind: str, value: str) -> str:
    """Return the name unchanged.

    Raises:
        InvalidJob: it is empty, too long, or has characters outside the alphabet.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        shown = repr(value)[:80]
        raise InvalidJob(f"{kind} {shown} is not allowed: use 1 to 128 of the characters A-Z a-z 0-9 _ . : -")
    return value


def encode(envelope: Envelope, payload_bytes: int) -> bytes:
    """Check an envelope and turn it into bytes.

    Args:
        payload_bytes: the most bytes that the result may have.

    Raises:
        InvalidJob: a name is not allowed, or an argument is no JSON value.
        PayloadTooLarge: the result would be too large.
    """
    check_name("job id", envelope.id)
    check_name("task name", envelope.task)
    check_name("queue name", envelope.queue)
    try:
        Level.parse(envelope.level)
    except ValueError as fault:
        raise InvalidJob(f"job for task {envelope.task!r} can't be sent: {fault}") from fault
    return encode_checked(envelope, payload_bytes)


def encode_checked(envelope: Envelope, payload_bytes: int) -> bytes:
    """As `encode`, for an envelope whose names and level were checked before."""
    try:
        data = _encoder.encode(envelope)
    except (TypeError, ValueError, RecursionError) as fault:
        raise InvalidJob(f"job for task {envelope.task!r} can't be written as JSON: {fault}") from fault
    # msgspec writes NaN and infinity as null, silently: the handler would get something else than was sent.
    if b"null" in data and _has_lost_number(envelope.args, envelope.kwargs):
        raise InvalidJob(f"job for task {envelope.task!r} holds NaN or infinity, which JSON has no number for")
    if len(data) > payload_bytes:
        raise PayloadTooLarge(
            f"job for task {envelope.task!r} has {len(data):,} bytes, allowed are {payload_bytes:,} "
            "(limits.payload_bytes); store the data elsewhere and send its address"
        )
    return data


def _has_lost_number(*values: Any) -> bool:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            return True
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        if _has_lost_number(*inner):
            return True
    return False


def decode(data: bytes) -> Envelope:
    """Read an envelope.

    Raises:
        EnvelopeError: the bytes are no envelope of a version that this release knows. No other
            error, whatever the bytes are.
    """
    try:
        envelope = _decoder.decode(data)
        if envelope.level not in _LEVELS:
            Level.parse(envelope.level)
    except (msgspec.DecodeError, ValueError, RecursionError) as fault:
        raise EnvelopeError(f"undecodable payload: {fault}") from fault
    if envelope.v > VERSION:
        raise EnvelopeError(
            f"payload has format version {envelope.v}, this release reads up to {VERSION}: upgrade rqsup"
        )
    return envelope
