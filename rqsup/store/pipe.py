"""One asyncio connection: calls of one loop turn leave in one write, answers are matched in order. No redis-py."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, cast

import hiredis

from rqsup.errors import RedisUnavailable

#: Calls that may be without an answer at once; who comes then waits for room.
MOST_UNDER_WAY = 1_000
#: Bytes that may wait for the end of a turn of the loop, and callers let in at once: with large jobs, memory.
MOST_UNSENT, MOST_ADMITTED = 1 << 20, 50


class Expected:
    """Answers that are due to one caller; their future is done when all have come."""

    __slots__ = ("answers", "count", "future", "sent_at")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, sent_at: float) -> None:
        self.future = future
        self.count = count
        self.sent_at = sent_at
        self.answers: list[Any] = []


class Pipe(asyncio.Protocol):
    """A connection, from open to closed; a closed one is replaced, never opened again.

    A caller that goes away leaves its place in the row of answers, so the others get theirs.
    `fault` says why the connection serves no more; None while it does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader()
        self._expected: deque[Expected] = deque()
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._under_way = 0
        self._row: deque[tuple[asyncio.Future[None], int]] = deque()
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._lost: asyncio.Future[None] = loop.create_future()
        self._drained: asyncio.Future[None] | None = None
        self.fault: str | None = None

    async def room(self, count: int) -> None:
        """Wait until so many calls may be posted; each `room` is followed by one `post`, unless `fault` is set."""
        if self.fault is not None:
            return  # nobody would be let in any more
        if not self._row and self._has_room():
            self._under_way += count
            return
        admitted = self._loop.create_future()
        self._row.append((admitted, count))
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():  # cancelled after it was let in
                self._leave(count)
            raise

    def post(self, data: bytes, count: int) -> asyncio.Future[list[Any]]:
        """Send packed calls at the end of this turn of the loop; the future holds their answers.

        An answer that is an error is an answer. The future fails with RedisUnavailable.
        """
        now = self._loop.time()
        expected = Expected(self._loop.create_future(), count, now)
        self._expected.append(expected)
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)
        self._unsent_size += len(data)
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._timeout_s, self._look)
        return expected.future

    async def close(self) -> None:
        """Let those who wait for room in, wait for all answers that are due, then close the connection."""
        if self.fault is None and self._is_busy():
            self._drained = self._loop.create_future()
            await self._drained
        self.fail("the client was closed")
        await self._lost

    def fail(self, fault: str) -> None:
        """Close the connection now: whoever waits for an answer gets the fault."""
        if self.fault is not None:
            return
        self.fault = fault
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        for expected in self._expected:
            if not expected.future.done():
                expected.future.set_exception(RedisUnavailable(fault))
        self._expected.clear()
        self._unsent.clear()
        while self._row:  # these have sent nothing: they look for another connection
            admitted, _ = self._row.popleft()
            if not admitted.done():
                admitted.set_result(None)
        self._tell_drained()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answers have come."""
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not False:
                self._take(answer)
        except (hiredis.ProtocolError, IndexError) as fault:
            self.fail(f"what answers there is no Redis: {fault}")
        self._admit()

    def pause_writing(self) -> None:
        """The server reads more slowly than we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self._admit()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.fail(str(exc) if exc else "Redis closed the connection")
        if not self._lost.done():
            self._lost.set_result(None)

    def _take(self, answer: Any) -> None:
        expected = self._expected[0]
        expected.answers.append(answer)
        if len(expected.answers) == expected.count:
            self._expected.popleft()
            self._under_way -= expected.count
            if not expected.future.done():
                expected.future.set_result(expected.answers)

    def _flush(self) -> None:
        if self._unsent and self._transport is not None:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._unsent_size = 0
            self._transport.write(data)
            self._admit()

    def _look(self) -> None:
        """Answers come in order, so the oldest call's deadline is the one to watch: one timer for all."""
        self._timer = None
        if not self._expected:
            return
        deadline = self._expected[0].sent_at + self._timeout_s
        if self._loop.time() >= deadline:
            self.fail(f"no answer in {self._timeout_s:g} s")
        else:
            self._timer = self._loop.call_at(deadline, self._look)

    def _has_room(self) -> bool:
        return self._under_way < MOST_UNDER_WAY and self._unsent_size < MOST_UNSENT and not self._paused

    def _leave(self, count: int) -> None:
        self._under_way -= count
        self._admit()

    def _admit(self) -> None:
        let_in = 0
        while self._row and let_in < MOST_ADMITTED and self._has_room():
            admitted, count = self._row.popleft()
            if not admitted.done():
                self._under_way += count
                admitted.set_result(None)
                let_in += 1  # the others' turn comes when these have posted
        if not self._is_busy():
            self._tell_drained()

    def _is_busy(self) -> bool:
        return self._under_way > 0 or bool(self._row)

    def _tell_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
