"""What master and zygote say to each other."""

from __future__ import annotations

import msgspec
import pytest

from rqsup.settings import RedisSettings, Settings, WorkerSettings
from rqsup.supervisor.messages import (
    MESSAGE_BYTES,
    REASON_CHARS,
    Forked,
    ForkRefused,
    ForkWorker,
    Message,
    Prepare,
    Prepared,
    PrepareFailed,
    decode,
    encode,
)
from rqsup.workers.assignment import Assignment

ALL = [
    Prepare(Settings(), 1, 2),
    Prepare(Settings(app=["a.b"], redis=RedisSettings(url="redis://ä"), workers=WorkerSettings(prefetch=3)), 9, 8),
    Prepared(["a", "b"], 0.5, "1.0"),
    PrepareFailed("Traceback …"),
    ForkWorker(Assignment(1, "host.1.1", 5, 2, 99)),
    Forked("host.1.1", 123),
    ForkRefused("host.1.1", "threads"),
]


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert decode(encode(message)) == message


def test_every_kind_of_message_is_tried() -> None:
    assert {type(message) for message in ALL} == set(Message.__args__)


@pytest.mark.parametrize("character", ["x", "\x01", "é", "\N{PILE OF POO}"])
def test_the_longest_reason_fits_into_a_message(character: str) -> None:
    assert len(encode(PrepareFailed(character * REASON_CHARS))) < MESSAGE_BYTES


@pytest.mark.parametrize("data", [b"", b"{}", b'{"type":"Exec"}', b'{"type":"Forked","worker":"w"}'])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data)
