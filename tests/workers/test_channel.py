"""The channel between a worker and its master."""

from __future__ import annotations

import socket

import pytest

from rqsup.workers.channel import LOOK, READY, Channel


def pair() -> tuple[Channel, socket.socket]:
    mine, its = socket.socketpair()
    return Channel(its.detach()), mine


def test_a_worker_says_once_that_it_is_ready() -> None:
    channel, master = pair()

    channel.say_ready()

    assert master.recv(64) == READY


def test_reading_takes_in_all_that_the_master_sent() -> None:
    channel, master = pair()
    master.send(LOOK * 200)

    assert channel.read()

    assert channel.read()
    master.close()
    assert not channel.read()


def test_the_end_of_the_master_is_seen_behind_its_last_words() -> None:
    channel, master = pair()
    master.send(LOOK)

    master.close()

    assert not channel.read()


def test_a_broken_channel_counts_as_the_masters_end() -> None:
    channel, master = pair()
    channel.say_ready()

    master.close()  # with a byte unread: the other end gets an error, not an orderly end

    assert not channel.read()
    with pytest.raises(OSError, match="Broken pipe"):
        channel.say_ready()
