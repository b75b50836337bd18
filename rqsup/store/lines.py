"""A client's connections: as many `Wire`s as its threads use at once, opened when they are needed.

Safe between threads. After a fork the child opens its own and leaves the parent's alone. Nothing is
repeated by itself, except a call of which the server said that it did not know the script.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Iterator
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

import hiredis

from rqsup.errors import RedisUnavailable
from rqsup.settings import RedisSettings
from rqsup.store.replies import is_unloaded
from rqsup.store.scripts import Argument
from rqsup.store.sendable import Sendable
from rqsup.store.wire import Wire

#: Seconds without use after which a connection is looked at before it is used: the server may have closed it.
FRESH_S = 0.01
#: When a connection was used last that is not open.
NEVER = float("-inf")


C = TypeVar("C", bound=Sendable)


_all: weakref.WeakSet[Lines] = weakref.WeakSet()


class Lines:
    """Connections of one client, to one server. Every fault of one is a RedisUnavailable."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        #: Wires that nobody uses, with when each was used last. The Nones stand for those not made yet.
        self._idle: SimpleQueue[tuple[Wire, float]] = SimpleQueue()
        self._unmade: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._settings.pool_size or 4 * (os.cpu_count() or 1)):
            self._unmade.put(None)

    def run(self, call: Sendable) -> Any:
        """Send one call and return its answer, undecoded; an answer that is an error is returned, not raised.

        Raises:
            RedisUnavailable: no answer; whether the call was carried out is unknown.
        """
        wire = self._take()
        try:
            wire.write(call.packed(flags=wire.flags))
            reply = wire.answer()
            if type(reply) is hiredis.ReplyError and is_unloaded(reply):
                reply = self._again(wire, [call])[0]
        except BaseException:
            wire.close()  # an answer may be under way, which would be taken for the next call's
            raise
        finally:
            self._give_back(wire)
        return reply

    def run_many(self, calls: Iterator[C], most: int, most_bytes: int) -> list[tuple[C, Any]]:
        """Send so many calls in one round trip, written while they are made; answers as `run`, each with its call.

        Raises:
            RedisUnavailable: no answer; which of the calls were carried out is unknown.
        """
        first = next(calls, None)
        if first is None:
            return []
        wire = self._take()
        try:
            sent = self._pour(wire, first, calls, most, most_bytes)
            replies = [wire.answer() for _ in sent]
            unloaded = [number for number, reply in enumerate(replies) if is_unloaded(reply)]
            if unloaded:
                again = self._again(wire, [sent[number] for number in unloaded])
                for number, reply in zip(unloaded, again, strict=True):
                    replies[number] = reply
        except BaseException:
            wire.close()
            raise
        finally:
            self._give_back(wire)
        return list(zip(sent, replies, strict=True))

    def command(self, *arguments: Argument) -> Any:
        """Send one plain command; its answer as from `run`."""
        wire = self._take()
        try:
            wire.write(hiredis.pack_command(cast(Any, arguments)))
            return wire.answer()
        except BaseException:
            wire.close()
            raise
        finally:
            self._give_back(wire)

    def close(self) -> None:
        """Close the connections that nobody uses; the next call opens one again."""
        for _ in range(self._idle.qsize()):
            try:
                wire, _ = self._idle.get_nowait()
            except Empty:
                return
            wire.close()
            self._give_back(wire)

    def _take(self) -> Wire:
        """A connection that is open, for this thread alone until `_give_back`."""
        try:
            wire, used_at = self._idle.get_nowait()
        except Empty:
            wire, used_at = self._make_or_await()
        if time.monotonic() - used_at > FRESH_S and not wire.is_open:
            try:
                wire.connect()
            except BaseException:
                self._give_back(wire)
                raise
        return wire

    def _make_or_await(self) -> tuple[Wire, float]:
        try:
            self._unmade.get_nowait()
        except Empty:
            try:
                return self._idle.get(timeout=self._settings.connect_timeout)
            except Empty:
                raise RedisUnavailable(
                    f"all connections of this client were in use for {self._settings.connect_timeout:g} s: "
                    "raise redis.pool_size, or use fewer threads"
                ) from None
        return Wire(self._settings, name="", scripts=()), NEVER

    def _give_back(self, wire: Wire) -> None:
        self._idle.put((wire, time.monotonic() if wire.connected else NEVER))

    @staticmethod
    def _pour(wire: Wire, first: C, calls: Iterable[C], most: int, most_bytes: int) -> list[C]:
        """Write calls as they are made: the server works on one while the next is made. Returns those written."""
        sent: list[C] = []
        size = 0
        for call in chain((first,), calls):
            data = call.packed(flags=wire.flags)
            wire.write(data)
            sent.append(call)
            size += len(data)
            if len(sent) >= most or size >= most_bytes:
                break
        return sent

    @staticmethod
    def _again(wire: Wire, calls: list[Any]) -> list[Any]:
        """Load the scripts that the server does not know, and send their calls again: they wrote nothing."""
        sources = {call.script.variant(flags=wire.flags)[1] for call in calls}
        load = b"".join(hiredis.pack_command(cast(Any, ("SCRIPT", "LOAD", source))) for source in sources)
        wire.write(load + b"".join(call.packed(flags=wire.flags) for call in calls))
        for _ in sources:
            wire.answer()
        return [wire.answer() for _ in calls]


def _forget_all() -> None:
    for lines in _all:
        lines._begin()  # noqa: SLF001 - a part of the class; asking for the pid in each call would cost it 0.3 µs


# Those connections are the parent's: closing the child's copies of their sockets disturbs it not.
os.register_at_fork(after_in_child=_forget_all)
