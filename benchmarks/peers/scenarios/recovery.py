"""kill -9 of a process that runs jobs: when do they run again, and who lost them? With every peer's default settings."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from benchmarks.peers.pool import PeerFailed, Pool
from benchmarks.peers.scenarios.scale import Row, Scale

#: Jobs of two seconds each, two worker processes; the kill comes so long after the first start.
JOBS, INTO_S = 20, 0.4


@dataclass(frozen=True, slots=True)
class Kill:
    """What was killed, and when."""

    at: float
    #: Jobs that had started in that process and not ended.
    held: tuple[int, ...]


def run(pool: Pool, scale: Scale) -> list[Row]:
    """Kill one process, and watch for so long whether all jobs come to their end."""
    pool.ready()
    pool.marks.clear()
    pool.produce("one", "nap", JOBS, 0)
    kill = _kill(pool)
    deadline = time.monotonic() + scale.watch_s
    while pool.marks.ended(JOBS) < JOBS and time.monotonic() < deadline:
        time.sleep(0.05)
    pool.stop()
    return [_outcome(pool, kill) | {"watched_s": scale.watch_s, "quiet": True}]


def _kill(pool: Pool) -> Kill:
    pool.wait(lambda: pool.marks.ran(JOBS) > 0, 20, "a first job")
    time.sleep(INTO_S)
    marks = pool.marks.rows(JOBS)
    running = [number for number, mark in enumerate(marks) if mark.runs and not mark.ends]
    if not running:
        raise PeerFailed(f"{pool.peer.name}: no job was under way when one should be killed, see {pool.log}")
    victim = marks[running[0]].pid
    if victim not in {process.pid for process in pool.tree()}:
        raise PeerFailed(f"{pool.peer.name}: a job runs in process {victim}, which is none of its pool")
    at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    return Kill(at, tuple(number for number in running if marks[number].pid == victim))


def _outcome(pool: Pool, kill: Kill) -> Row:
    marks = pool.marks.rows(JOBS)
    again = sorted(marks[number].last - kill.at for number in kill.held if marks[number].last > kill.at)
    return {
        "jobs": JOBS, "held": len(kill.held), "ended": sum(mark.ends > 0 for mark in marks), "again": len(again),
        "first_again_ms": 1000 * again[0] if again else None, "last_again_ms": 1000 * again[-1] if again else None,
        "others_twice": sum(mark.runs > 1 for number, mark in enumerate(marks) if number not in kill.held),
    }  # fmt: skip
