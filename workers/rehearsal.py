"""A worker's first jobs, played in the zygote before it forks: what they change in memory once and for all, all workers share.

Python writes into the code that it runs: it replaces instructions by faster ones, and remembers what it found under which
name. Done after the fork, each page so written is a copy in each worker. Played are the worker's own loop, connection and
runner, with jobs that do nothing. Nobody else takes part: no server, no scoreboard, no function of the application.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from mmap import mmap
from typing import Any

import hiredis

from rqsup.envelope import Envelope, encode_checked
from rqsup.settings import RedisSettings, Settings
from rqsup.store.address import Address
from rqsup.store.scripts import script
from rqsup.store.wire import READ_BYTES, Wire
from rqsup.task import Task, borrowed
from rqsup.workers.alarm import Alarm
from rqsup.workers.channel import Channel
from rqsup.workers.loop import SCRIPTS, Loop
from rqsup.workers.run import Place, Runner
from rqsup.workers.slot import STRIDE, Order, Slot, slot_at

#: Jobs that are played: Python 3.11 begins with code that ran 8 times, and is done with it soon after.
JOBS = 64
#: Name of their task, which no application's may have meanwhile.
TASK = "rqsup.rehearsal"
ENVELOPE = encode_checked(Envelope(id="rehearsal-1", task=TASK, args=[1]), 1000)


def rehearse(settings: Settings, title: str) -> int:
    """Play a worker's life; returns how many jobs it ran.

    The process's title begins with `title` from then on; signal handlers are as before.

    Raises:
        OSError: this process is out of descriptors.
        RuntimeError: it could not be played to its end.
    """
    slot = slot_at(mmap(-1, STRIDE), 0)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)}
    try:
        with borrowed(Task(_do_nothing, TASK)), _stage(settings, title, slot) as loop:
            loop.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
            signal.siginterrupt(number, False)
    return slot.jobs_ended()


@contextlib.contextmanager
def _stage(settings: Settings, title: str, slot: Slot) -> Iterator[Loop]:
    """A loop with all that it needs, none of it anybody else's."""
    masters, its = socket.socketpair()
    with masters, its, contextlib.closing(_Server(slot)) as server:
        # Not the settings' own address: no password is read here.
        wire = Wire(RedisSettings(), name=TASK, scripts=SCRIPTS, dial=server.dial)
        alarm, log = Alarm(title, lambda: False), _Silence()
        place = Place(TASK, 0, "", os.getpid(), 0)
        runner = Runner(settings=settings, place=place, slot=slot, alarm=alarm, log=log)
        channel = Channel(os.dup(its.fileno()))
        try:
            yield Loop(
                settings=settings, worker=TASK, slot=slot, channel=channel, wire=wire, runner=runner, alarm=alarm, log=log
            )  # fmt: skip
        finally:
            os.close(channel.fileno())


def _do_nothing(number: int) -> int:
    return number


class _Silence:
    """A log that says nothing."""

    def warning(self, event: str, **fields: Any) -> None:
        """Say nothing."""

    info = error = warning


class _Server(socket.socket):
    """A connection and what is at its other end: whatever is sent finds its answer waiting.

    The first half of the jobs are handed over one by one, the others claimed with the settles before them. At last, the
    order to leave comes.
    """

    def __init__(self, slot: Slot) -> None:
        near, self._far = socket.socketpair()
        super().__init__(fileno=near.detach())
        self._slot = slot
        self._commands = hiredis.Reader()
        self._dialled = False
        self._given = 0
        self._settle, self._begin = (
            {script(name).variant(flags=flags)[0].encode() for flags in (True, False)} for name in ("settle", "begin")
        )

    def dial(self, _settings: RedisSettings, _address: Address) -> socket.socket:
        """This connection, once: a worker that dials again met a fault, and would do so for ever."""
        if self._dialled:
            raise RuntimeError(f"the rehearsal lost its connection to itself after {self._given} jobs")
        self._dialled = True
        return self

    def close(self) -> None:
        """Close both ends."""
        super().close()
        self._far.close()

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send commands, and have the answers sent."""
        super().sendall(data, flags)
        self._commands.feed(self._far.recv(READ_BYTES))
        while (command := self._commands.gets()) is not False:
            self._far.sendall(_packed(self._answer(command)))

    def _answer(self, command: list[bytes]) -> Any:
        if command[0] == b"BLMOVE":
            if self._given < JOBS // 2:
                return b"an id"
            self._slot.order = Order.LEAVE
            return None
        if command[0] != b"EVALSHA":
            return b"redis_version:7.0.0"
        if command[1] in self._begin:
            return [b"ok", self._jobs(1 if self._given < JOBS // 2 else 0), []]
        if command[1] not in self._settle:
            return [b"ok", [], []]
        arguments = command[4:]
        count, lanes = int(arguments[1]), int(arguments[2])
        ended = (len(arguments) - 3 - lanes) // 5
        return [[b"ok"] * ended, self._jobs(count) if self._given >= JOBS // 2 else [], []]

    def _jobs(self, count: int) -> list[Any]:
        count = min(count, JOBS - self._given)
        self._given += count
        return [[b"rehearsal-1", 1, 0, 0, ENVELOPE]] * count


def _packed(answer: Any) -> bytes:
    r"""An answer as Redis sends it.

    >>> _packed([1, b"ab", None])
    b'*3\r\n:1\r\n$2\r\nab\r\n$-1\r\n'
    """
    if answer is None:
        return b"$-1\r\n"
    if isinstance(answer, int):
        return b":%d\r\n" % answer
    if isinstance(answer, bytes):
        return b"$%d\r\n%s\r\n" % (len(answer), answer)
    return b"*%d\r\n%s" % (len(answer), b"".join(map(_packed, answer)))
