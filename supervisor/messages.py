"""Everything that the master and a zygote say to each other: one datagram a message, as JSON.

Between the master and a worker there are only two single bytes: rqsup/workers/channel.py.
"""

from __future__ import annotations

import msgspec

from rqsup.settings import Settings
from rqsup.workers.assignment import Assignment
from rqsup.workers.isolation.protection import Protection


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """To a new zygote: import the application and get ready to fork."""

    settings: Settings
    generation: int
    master_pid: int


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """From the zygote: the application is imported, these are its tasks."""

    tasks: list[str]
    seconds: float
    #: What it understands (rqsup/workers/protocol.py): its code may be newer than the master's.
    protocol: str
    #: The walls of the sandbox on this machine; empty when no task asks for one.
    protections: list[Protection] = []


class PrepareFailed(msgspec.Struct, frozen=True, tag=True):
    """From the zygote: the application could not be imported; the zygote ends."""

    reason: str


class ForkWorker(msgspec.Struct, frozen=True, tag=True):
    """To the zygote: fork a worker. As descriptors come along the worker's end of its channel, its black box, and its end of its output pipe, if any."""

    assignment: Assignment


class Forked(msgspec.Struct, frozen=True, tag=True):
    """From the zygote: the worker runs, and is the master's child."""

    worker: str
    pid: int


class ForkRefused(msgspec.Struct, frozen=True, tag=True):
    """From the zygote: no worker was forked, for this reason."""

    worker: str
    reason: str


Message = Prepare | Prepared | PrepareFailed | ForkWorker | Forked | ForkRefused

#: Most bytes of one message.
MESSAGE_BYTES = 1 << 17
#: Most descriptors that come with one: a worker's channel, black box and output pipe.
MESSAGE_DESCRIPTORS = 3
#: Most characters of a reason, so that a message always fits.
REASON_CHARS = 20_000

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """One message as a datagram."""
    return msgspec.json.encode(message)


def decode(data: bytes) -> Message:
    """Read one datagram."""
    return _decoder.decode(data)
