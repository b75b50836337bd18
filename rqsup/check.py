"""The state checker: is every job in exactly one place, and does the place match its state?

It does not stop a live server. A first look reads all places and records in pages; jobs move
meanwhile, so what does not fit is only suspected. A second look at each suspect is one atomic
script, and what does not fit then is a fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import cast

import msgspec
import redis

from rqsup.job import FINISHED_STATES, LEVEL_LABELS, JobState
from rqsup.store import scripts
from rqsup.store.connection import Store
from rqsup.store.keys import Keys
from rqsup.store.scripts import Location

#: Entries read in one command: short enough not to delay the server's other clients.
PAGE = 1000
#: Suspects looked at in one round trip.
SECOND_LOOKS = 100
#: Faults after which the check stops: a person reads them.
FAULTS_SHOWN = 1000


class Fault(msgspec.Struct, frozen=True):
    """One thing that is not as it must be."""

    #: The job; for a fault of a whole key, the key's name without the namespace.
    id: str
    state: str
    places: list[str]
    message: str


class Report(msgspec.Struct, frozen=True):
    """What a check found."""

    faults: list[Fault]
    #: Entries by kind of place (ready, inbox, processing, scheduled, dead), and finished jobs.
    counts: dict[str, int]
    #: What could not be looked at, in words; empty = everything was.
    gaps: list[str]

    @property
    def clean(self) -> bool:
        """True when there is no fault."""
        return not self.faults


def check(store: Store, keys: Keys) -> Report:
    """Look at every job of a namespace, without stopping the server."""
    return _Checker(store, keys).report()


def judge(job: Location) -> str | None:
    """What is wrong with a job, in words; None when it is in exactly one place that matches its state."""
    if job.state in FINISHED_STATES:
        return _judge_finished(job)
    if job.state not in set(JobState):
        return _judge_unreadable(job)
    if not job.places:
        return f"is {job.state} but in no place: nothing would ever happen to it"
    if len(job.places) > 1:
        return f"is in {len(job.places)} places at once: it could run more than once"
    if not _fits(job, job.places[0]):
        return f"is {job.state}{_whose(job)} but lies in {job.places[0]}"
    if job.ttl_ms >= 0:
        return f"is {job.state} but its record expires in {job.ttl_ms / 1000:.0f} s: it would be lost"
    return None


def _judge_finished(job: Location) -> str | None:
    if job.places:
        return f"is {job.state} but still lies in {' and '.join(job.places)}"
    return f"is {job.state} but its record never expires" if job.ttl_ms == -1 else None


def _judge_unreadable(job: Location) -> str | None:
    # An unreadable letter is where it belongs: among the dead, with what is left of it as evidence.
    gone = not job.places and job.ttl_ms == -2
    if gone or job.places == ["dead"]:
        return None
    if not job.places:
        return f"has a record that rqsup did not write (state {job.state!r}), and is in no place"
    return f"lies in {' and '.join(job.places)} without a readable record: a worker would bury it"


def _whose(job: Location) -> str:
    return f" on worker {job.worker}" if job.state == JobState.ACTIVE else f" in lane {job.lane}"


def _fits(job: Location, place: str) -> bool:
    """Whether the place is right for the state."""
    kind, _, owner = place.partition(":")
    if job.state == JobState.READY:
        # Handed over but not begun counts as ready.
        return place == f"ready:{job.lane}" or kind in {"inbox", "processing"}
    if job.state == JobState.ACTIVE:
        # In another worker's list, recovery would take it for a stray copy and drop it.
        return kind == "processing" and owner == job.worker
    return place == job.state


class _Checker:
    """One check: places, then records, then a second look at what did not fit."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._redis = store.client
        self._keys = keys
        self._faults: list[Fault] = []
        self._gaps: list[str] = []
        self._counts = dict.fromkeys(("ready", "inbox", "processing", "scheduled", "dead", "finished"), 0)
        #: Where each id was seen, as an index into `_places`: 200,000 jobs in about 40 MiB.
        self._seen: dict[str, int] = {}
        self._places: list[str] = []
        self._suspects: set[str] = set()

    def report(self) -> Report:
        """Run the steps in order."""
        records, names = self._scan()
        workers = self._members(self._keys.workers)
        lanes = {f"{queue}:{level}" for queue in self._members(self._keys.queues) for level in LEVEL_LABELS}
        lanes |= {name.removeprefix("ready:") for name in names if name.startswith("ready:")}
        strangers = {name.partition(":")[2] for name in names if not name.startswith("ready:")} - workers
        # Along a job's way, so that one that moves is rather seen twice than missed.
        self._read_sorted_set("scheduled")
        for lane in sorted(lanes):
            self._read_list(f"ready:{lane}")
        for worker in sorted(workers | strangers):
            self._read_list(f"inbox:{worker}")
            self._read_list(f"processing:{worker}")
        self._read_sorted_set("dead")
        self._compare_placed()
        self._compare_unplaced(records)
        self._look_again(sorted(lanes), sorted(strangers))
        self._judge_strangers(strangers)
        return Report(self._faults, self._counts, self._gaps)

    def _scan(self) -> tuple[set[str], set[str]]:
        """Ids of all job records, and names of all lists of jobs."""
        root = self._keys.root
        records: set[str] = set()
        names: set[str] = set()
        try:
            for key in self._redis.scan_iter(match=f"{root}*", count=PAGE):
                name = _text(key).removeprefix(root)
                if name.startswith("job:"):
                    records.add(name.removeprefix("job:"))
                elif name.startswith(("ready:", "inbox:", "processing:")):
                    names.add(name)
        except redis.exceptions.NoPermissionError:
            self._gaps.append(
                "this Redis user may not SCAN: jobs that are in no list, and lists of unknown workers, could not be "
                "looked for; use a user with +scan for the whole check"
            )
        return records, names

    def _members(self, key: str) -> set[str]:
        """Members of a set, or fields of a hash."""
        scan = self._redis.hscan_iter if key == self._keys.workers else self._redis.sscan_iter
        try:
            return {_text(entry[0] if isinstance(entry, tuple) else entry) for entry in scan(key, count=PAGE)}
        except redis.exceptions.ResponseError as fault:
            self._wrong_key(key.removeprefix(self._keys.root), fault)
            return set()

    def _read_list(self, name: str) -> None:
        self._read(name, lambda start: self._redis.lrange(self._keys.root + name, start, start + PAGE - 1))

    def _read_sorted_set(self, name: str) -> None:
        self._read(name, lambda start: self._redis.zrange(self._keys.root + name, start, start + PAGE - 1))

    def _read(self, name: str, page: object) -> None:
        read = cast("_Page", page)
        kind = name.partition(":")[0]
        index = len(self._places)
        self._places.append(name)
        start = 0
        try:
            while ids := read(start):
                self._note([_text(raw) for raw in ids], index)
                self._counts[kind] += len(ids)
                start += len(ids)
        except redis.exceptions.ResponseError as fault:
            self._wrong_key(name, fault)
