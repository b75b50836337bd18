"""Counts what became of each job, from its record in Redis, in pages: memory does not grow with the jobs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from rqsup.client import Client
from rqsup.job import JobState
from rqsup.request import Request

#: Records read in one round trip.
PAGE = 500
#: Files shown in the summary.
LARGEST = 5


class Ledger:
    """The ids of all accepted jobs, on disk, in the order in which they were accepted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="ascii")
        self.count = 0

    def add(self, requests: Sequence[Request]) -> None:
        """Note jobs that Redis has accepted."""
        self._file.writelines(f"{request.job_id}\n" for request in requests)
        self._file.flush()
        self.count += len(requests)

    def __iter__(self) -> Iterator[str]:
        with self._path.open(encoding="ascii") as file:
            for line in file:
                yield line.rstrip("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Digest(msgspec.Struct, frozen=True):
    """What the demo's task returns."""

    path: str
    bytes: int
    error: str | None = None


@dataclass(slots=True)
class Tally:
    """What became of the accepted jobs."""

    accepted: int = 0
    succeeded: int = 0
    dead: int = 0
    #: Accepted, but neither succeeded nor dead.
    lost: int = 0
    size_bytes: int = 0
    #: Files that had vanished or may not be read when their job ran.
    unreadable: int = 0
    #: (bytes, path), a heap with the smallest first.
    largest: list[tuple[int, str]] = field(default_factory=list)

    def add(self, state: str, result: bytes, *, again: bool) -> None:
        """Count one job; `again` = its file was counted before."""
        self.accepted += 1
        if state == JobState.DEAD:
            self.dead += 1
        elif state != JobState.SUCCEEDED:
            self.lost += 1
        else:
            self.succeeded += 1
            if not again:
                self._add_file(msgspec.json.decode(result, type=Digest))

    def _add_file(self, digest: Digest) -> None:
        self.size_bytes += digest.bytes
        self.unreadable += digest.error is not None
        heapq.heappush(self.largest, (digest.bytes, digest.path))
        if len(self.largest) > LARGEST:
            heapq.heappop(self.largest)


def tally(client: Client, ids: Iterable[str], files: int) -> Tally:
    """Read the records of these jobs; those after the first `files` are repeats of a file."""
    total = Tally()
    rest = iter(ids)
    while page := list(islice(rest, PAGE)):
        for state, result in _read(client, page):
            total.add((state or b"").decode(), result or b"null", again=total.accepted >= files)
    return total


def _read(client: Client, ids: list[str]) -> list[Any]:
    with client.store.client.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hmget(client.keys.job(job_id), "state", "result")
        rows: list[Any] = pipeline.execute()
        return rows
