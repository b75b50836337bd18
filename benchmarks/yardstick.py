"""How fast is this machine at the moment? A fixed piece of work of Redis' own kind, done now and then beside a long run.

A shared host changes its speed by a third within a minute: costs at the two ends of a long run can only be compared as
multiples of what the same work cost meanwhile.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import redis

from benchmarks.meters import cpu_s
from rqsup.store.server import LocalServer

#: The commands that a job cannot do without, on records of a job's size: two thousand of them, to leave the caches as jobs do.
WORK = """
local envelope = string.rep('x', 150)
for at = ARGV[1], ARGV[1] + 399 do
  local key = 'job:' .. at % 2000
  redis.call('DEL', key)
  redis.call('HSET', key, 'state', 'ready', 'envelope', envelope, 'queue', 'default', 'level', 'normal', 'enqueued_at', at, 'due_at', '0')
  redis.call('HMGET', key, 'state', 'envelope', 'token', 'errors', 'crashes')
  redis.call('HSET', key, 'state', 'active', 'worker', 'w', 'token', '1', 'started_at', at)
  redis.call('HMGET', key, 'state', 'worker', 'token')
  redis.call('HSET', key, 'state', 'succeeded', 'result', 'null', 'finished_at', at)
  redis.call('PEXPIRE', key, '86400000')
end
"""
#: Records that one look works on, and seconds between two looks: a hundredth or two of a core.
RECORDS, PAUSE_S = 400, 0.25


class Yardstick:
    """A server of its own, and what a fixed piece of work has cost it since the last time that somebody asked."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rqsup-yardstick-"))
        self._server = LocalServer(self._folder, aof=False)
        self._next_at = 0.0
        self._looks = 0
        #: What each look since the last reading has cost.
        self._spent_s: list[float] = []

    def __enter__(self) -> Self:
        self._redis = redis.Redis.from_url(self._server.start().url)
        self._process = psutil.Process(self._server.pid)
        for _ in range(10):
            self._look()
        self.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redis.close()
        self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def look_when_due(self) -> None:
        """Do the work once more, if the last time is a while ago."""
        if time.monotonic() >= self._next_at:
            self._look()

    def read(self) -> float:
        """Processor time for one record, microseconds: the median of the looks since the last reading."""
        if not self._spent_s:
            self._look()
        spent_s = statistics.median(self._spent_s)
        self._spent_s.clear()
        return 1e6 * spent_s / RECORDS

    def _look(self) -> None:
        began = cpu_s([self._process])
        self._redis.eval(WORK, 0, str(self._looks * RECORDS))
        self._spent_s.append(cpu_s([self._process]) - began)
        self._looks += 1
        self._next_at = time.monotonic() + PAUSE_S
