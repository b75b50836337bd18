"""What happened in the master lately, for `rqsup events`: the events of its own log, whatever level is written there."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Protocol

import msgspec

#: Events kept for those who ask later, and for followers that are slow.
EVENTS_KEPT = 1000
#: Seconds after which a follower without news is looked at: it may have gone, or have room again.
LOOK_S = 0.5
#: Loggers whose lines are no events of the master: what jobs print.
LEFT_OUT = frozenset({"job"})
#: Most characters of one value.
VALUE_CHARS = 500


class Listener(Protocol):
    """Somebody who is told events, and may be slow or gone."""

    def __call__(self, text: str, /) -> None:
        """Tell one line; only while there is room."""

    @property
    def has_room(self) -> bool:
        """True while it reads."""
        ...

    @property
    def gone(self) -> bool:
        """True once it has hung up."""
        ...


class Event(msgspec.Struct, frozen=True):
    """One thing that happened."""

    #: Counts from 1 in the life of a master.
    number: int
    #: Wall clock, seconds since the epoch; for display.
    at: float
    level: str
    event: str
    fields: dict[str, Any]


class Missed(msgspec.Struct, frozen=True):
    """Said in place of events that a slow listener will not get."""

    missed: int


class Events:
    """A ring of the latest events, and its followers; all in the master's loop."""

    def __init__(self, kept: int = EVENTS_KEPT) -> None:
        self._ring: deque[Event] = deque(maxlen=kept)
        self._next = 1
        self._news = asyncio.Event()
        self._closed = False
        self.followers = 0

    def take(self, fields: MutableMapping[str, Any]) -> None:
        """Note one event of the log."""
        if fields.pop("logger_name", "") in LEFT_OUT:
            return
        level, event = str(fields.pop("level", "info")), str(fields.pop("event", ""))
        fields.pop("exc_info", None)
        plain = {name: _plain(value) for name, value in fields.items() if value is not None}
        self._ring.append(Event(self._next, time.time(), level, event, plain))
        self._next += 1
        self._wake()

    def close(self) -> None:
        """Let the followers go: the master ends."""
        self._closed = True
        self._wake()

    async def tell(self, listener: Listener, *, last: int, follow: bool) -> None:
        """Tell the last so many events, and with `follow` all that come, until the listener or the master goes."""
        self.followers += 1
        try:
            cursor = max(1, self._next - last)
            while True:
                news = self._news
                cursor = self._send(listener, cursor)
                if not follow or listener.gone or self._closed:
                    return
                try:
                    async with asyncio.timeout(LOOK_S):
                        await news.wait()
                except TimeoutError:
                    continue
                if not listener.has_room:
                    await asyncio.sleep(LOOK_S)
        finally:
            self.followers -= 1

    def _send(self, listener: Listener, cursor: int) -> int:
        """Tell what there is from the cursor on, as far as there is room; returns the new cursor."""
        oldest = self._next - len(self._ring)
        if cursor < oldest and listener.has_room:
            # Those that fell out of the ring before the asking are no loss of the listener's, but it should know.
            listener(msgspec.json.encode(Missed(oldest - cursor)).decode())
            cursor = oldest
        while oldest <= cursor < self._next and listener.has_room:
            listener(msgspec.json.encode(self._ring[cursor - oldest]).decode())
            cursor += 1
        return cursor

    def _wake(self) -> None:
        # A fresh one each time: every follower has waited on the one before.
        news, self._news = self._news, asyncio.Event()
        news.set()


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= VALUE_CHARS else text[: VALUE_CHARS - 1] + "…"
