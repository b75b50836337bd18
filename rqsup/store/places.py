"""Reads every place of a namespace in pages, short enough not to delay the server's other clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import redis
from redis.exceptions import NoPermissionError, ResponseError

from rqsup.job import LEVEL_LABELS
from rqsup.store.keys import Keys

T = TypeVar("T")

#: Entries read in one command.
PAGE = 1000


@dataclass(slots=True)
class Inventory:
    """What exists in a namespace; `gaps` and `wrong` say in words what could not be read."""

    #: Workers in the registry.
    workers: set[str] = field(default_factory=set)
    #: Workers that own a list but are not in the registry.
    strangers: set[str] = field(default_factory=set)
    lanes: set[str] = field(default_factory=set)
    #: Ids of all job records; empty when this user may not SCAN.
    records: set[str] = field(default_factory=set)
    gaps: list[str] = field(default_factory=list)
    #: Key (without the root) and error, for each key of a wrong type.
    wrong: dict[str, str] = field(default_factory=dict)

    def places(self) -> list[str]:
        """Names of all places without the root, along a job's way: one that moves is rather seen twice than missed."""
        owners = sorted(self.workers | self.strangers)
        return [
            "scheduled",
            *(f"ready:{lane}" for lane in sorted(self.lanes)),
            *(f"inbox:{owner}" for owner in owners),
            *(f"processing:{owner}" for owner in owners),
            "dead",
        ]


def take_inventory(client: redis.Redis, keys: Keys) -> Inventory:
    """Find all lanes, workers and records."""
    found = Inventory()
    _scan(client, keys, found)
    queues = _members(client.sscan_iter, keys, keys.queues, found)
    found.lanes |= {f"{queue}:{level}" for queue in queues for level in LEVEL_LABELS}
    # Last: a worker that joins later is in the second look's own list.
    found.workers = _members(client.hscan_iter, keys, keys.workers, found)
    found.strangers -= found.workers
    return found


def read_place(client: redis.Redis, keys: Keys, name: str) -> Iterator[list[str]]:
    """The ids of one place, page by page.

    Raises:
        ResponseError: the key has a wrong type.
    """
    read: Callable[..., Any] = client.zrange if name in {"scheduled", "dead"} else client.lrange
    start = 0
    while page := read(raw(keys.root + name), start, start + PAGE - 1):
        yield [text(job_id) for job_id in page]
        start += len(page)


def pages(items: Iterable[T], size: int = PAGE) -> Iterator[Sequence[T]]:
    """The items in groups of `size`."""
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page


def text(name: bytes) -> str:
    """An id or a name as text; foreign bytes survive the way there and back."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """The bytes that `text` was made of."""
    return name.encode("utf-8", "surrogateescape")


def _scan(client: redis.Redis, keys: Keys, found: Inventory) -> None:
    try:
        for key in client.scan_iter(match=f"{keys.root}*", count=PAGE):
            kind, _, name = text(key).removeprefix(keys.root).partition(":")
            if kind == "job":
                found.records.add(name)
            elif kind == "ready":
                found.lanes.add(name)
            elif kind in {"inbox", "processing"}:
                found.strangers.add(name)
    except NoPermissionError:
        found.gaps.append(
            "this Redis user may not SCAN: jobs that are in no list, and lists of unknown workers, could not be "
            "looked for; use a user with +scan for the whole check"
        )


def _members(scan: Callable[..., Iterable[Any]], keys: Keys, key: str, found: Inventory) -> set[str]:
    """Members of a set, or fields of a hash."""
    try:
        return {text(entry[0] if isinstance(entry, tuple) else entry) for entry in scan(key, count=PAGE)}
    except ResponseError as fault:
        found.wrong[key.removeprefix(keys.root)] = str(fault)
        return set()
