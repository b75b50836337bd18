"""A worker's connection on its event loop, where nothing may block: opened by a passing thread, read when something has come."""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Callable
from typing import Any

from rqsup.errors import RedisUnavailable
from rqsup.store.wire import Wire


class State(enum.Enum):
    """What a line is good for."""

    DOWN = 1
    OPENING = 2
    UP = 3


class Line:
    """One connection. Its faults come out of `take`, in the turn of the loop that `on_change` asks for."""

    def __init__(self, events: asyncio.AbstractEventLoop, wire: Wire, on_change: Callable[[], None]) -> None:
        self.wire = wire
        self.state = State.DOWN
        self._events = events
        self._on_change = on_change
        self._answers: list[Any] = []
        self._fault: RedisUnavailable | None = None
        #: It was closed while the thread opened it.
        self._unwanted = False

    def open(self, pause_s: float = 0.0) -> None:
        """Open it after a pause; does nothing when it is open, or about to be."""
        self._unwanted = False
        if self.state is State.DOWN:
            self.state = State.OPENING
            self._events.call_later(pause_s, self._connect)

    def close(self) -> None:
        """Close it; answers that were not taken are dropped."""
        self._answers.clear()
        self._fault = None
        if self.state is State.OPENING:
            self._unwanted = True
            return
        self.state = State.DOWN
        if self.wire.fileno() >= 0:
            self._events.remove_reader(self.wire.fileno())
        self.wire.close()

    def take(self) -> list[Any]:
        """The answers that have come since the last time.

        Raises:
            RedisUnavailable: it could not be opened, or failed since.
        """
        if self._fault is not None:
            raise self._fault
        answers, self._answers = self._answers, []
        return answers

    def fail(self, reason: str) -> None:
        """Declare it failed."""
        self._fault = RedisUnavailable(reason)
        self._on_change()

    def _connect(self) -> None:
        """Start the thread. It has ended when the line is up: a worker with threads could not fork."""

        def connect() -> None:
            fault: RedisUnavailable | None = None
            try:
                self.wire.connect()
            except RedisUnavailable as reason:
                fault = reason
            except BaseException as reason:  # noqa: BLE001 - a thread that ends in silence would leave the worker without a line
                fault = RedisUnavailable(f"connecting failed: {reason!r}")
            self._events.call_soon_threadsafe(self._connected, thread, fault)

        thread = threading.Thread(target=connect, daemon=True)
        thread.start()

    def _connected(self, thread: threading.Thread, fault: RedisUnavailable | None) -> None:
        thread.join()
        self.state = State.DOWN if fault else State.UP
        if self._unwanted:
            self._unwanted = False
            self.wire.close()
            self.state = State.DOWN
        elif fault is not None:
            self._fault = fault
        else:
            self._events.add_reader(self.wire.fileno(), self._read)
        self._on_change()

    def _read(self) -> None:
        # Here and not in `take`: by then the loop would have called twice, and the second reading would wait.
        try:
            self._answers += self.wire.receive_ready()
        except RedisUnavailable as fault:
            self._fault = fault
            # It stays readable: the loop would call again and again.
            self._events.remove_reader(self.wire.fileno())
        self._on_change()
