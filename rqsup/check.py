"""The state checker: is every job in exactly one place, and does the place match its state?

It does not stop a live server. A first look reads all places and records in pages; jobs move
meanwhile, so what does not fit is only suspected. A second look at each suspect is one atomic
script, and what does not fit then is a fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec
from redis.exceptions import ResponseError

from rqsup.job import FINISHED_STATES, JobState
from rqsup.store import scripts
from rqsup.store.connection import Store
from rqsup.store.keys import Keys
from rqsup.store.places import pages, read_place, take_inventory
from rqsup.store.scripts import Location

#: Records read in one round trip: one script of about a millisecond.
RECORDS = 500
#: Suspects looked at in one round trip.
SUSPECTS = 100
#: Faults after which the check ends: a person reads them.
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
    #: What was not looked at, in words; empty = everything was.
    gaps: list[str]

    @property
    def clean(self) -> bool:
        """True when there is no fault."""
        return not self.faults


def check(store: Store, keys: Keys) -> Report:
    """Look at every job of a namespace, without stopping the server."""
    return _Check(store, keys).report()


def judge(job: Location) -> str | None:
    """What is wrong with a job, in words; None when it is in exactly one place that matches its state."""
    if job.state in FINISHED_STATES:
        return _judge_finished(job)
    if job.state not in set(JobState):
        return _judge_unreadable(job)
    if len(job.places) != 1:
        return _judge_count(job)
    if not _fits(job, job.places[0]):
        return f"is {job.state}{_whose(job)} but lies in {job.places[0]}"
    if job.ttl_ms >= 0:
        return f"is {job.state} but its record expires in {job.ttl_ms / 1000:.0f} s: it would be lost"
    return None


def _judge_count(job: Location) -> str:
    if not job.places:
        return f"is {job.state} but in no place: nothing would ever happen to it"
    return f"is in {len(job.places)} places at once ({', '.join(job.places)}): it could run more than once"


def _judge_finished(job: Location) -> str | None:
    if job.places:
        return f"is {job.state} but still lies in {' and '.join(job.places)}"
    return f"is {job.state} but its record never expires" if job.ttl_ms == -1 else None


def _judge_unreadable(job: Location) -> str | None:
    gone = not job.places and job.ttl_ms == -2
    # An unreadable letter is where it belongs: among the dead, with what is left of it as evidence.
    if gone or job.places == ["dead"]:
        return None
    if not job.places:
        return f"has a record that rqsup did not write (state {job.state!r}), and is in no place"
    return f"lies in {' and '.join(job.places)} without a readable record: a worker would bury it"


def _whose(job: Location) -> str:
    return {JobState.ACTIVE: f" on worker {job.worker}", JobState.READY: f" in lane {job.lane}"}.get(
        JobState(job.state), ""
    )


def _fits(job: Location, place: str) -> bool:
    kind, _, owner = place.partition(":")
    if job.state == JobState.READY:
        # Handed over to a worker but not begun counts as ready.
        return place == f"ready:{job.lane}" or kind in {"inbox", "processing"}
    if job.state == JobState.ACTIVE:
        # In another worker's list, recovery would take it for a stray copy and drop it.
        return kind == "processing" and owner == job.worker
    return place == job.state


class _Check:
    """One check: all places, then all records, then a second look at what did not fit."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._found = take_inventory(store.client, keys)
        self._places = self._found.places()
        #: Where each id was seen, as an index into `_places`: 200,000 jobs take about 40 MiB.
        self._seen: dict[str, int] = {}
        #: Further sightings of an id that was seen before: it moved, or has a copy.
        self._sightings: dict[str, set[int]] = {}
        self._suspects: set[str] = set()
        self._faults: list[Fault] = []
        self._counts: dict[str, int] = dict.fromkeys(
            ("ready", "inbox", "processing", "scheduled", "dead", "finished"), 0
        )

    def report(self) -> Report:
        """Run all steps."""
        for index, place in enumerate(self._places):
            self._read(index, place)
        self._compare_placed()
        self._compare_unplaced()
        self._look_again()
        self._look_at_strangers()
        self._faults += [Fault(name, "", [], f"cannot be read: {fault}") for name, fault in self._found.wrong.items()]
        return Report(self._faults, self._counts, self._found.gaps)

    def _read(self, index: int, place: str) -> None:
        kind = place.partition(":")[0]
        try:
            for ids in read_place(self._store.client, self._keys, place):
                self._counts[kind] += len(ids)
                for job_id in ids:
                    if job_id in self._seen:
                        self._sightings.setdefault(job_id, {self._seen[job_id]}).add(index)
                    else:
                        self._seen[job_id] = index
        except ResponseError as fault:
            self._found.wrong[place] = str(fault)

    def _compare_placed(self) -> None:
        for page in pages(self._seen.items(), RECORDS):
            for (job_id, index), job in zip(page, self._survey([job_id for job_id, _ in page]), strict=True):
                self._suspect(job_id, dataclasses.replace(job, places=[self._places[index]]))

    def _compare_unplaced(self) -> None:
        for page in pages(self._found.records - self._seen.keys(), RECORDS):
            for job_id, job in zip(page, self._survey(page), strict=True):
                self._counts["finished"] += job.state in FINISHED_STATES
                self._suspect(job_id, job)

    def _survey(self, job_ids: Sequence[str]) -> list[Location]:
        return self._store.run(scripts.survey(self._keys.root, job_ids=job_ids))

    def _suspect(self, job_id: str, job: Location) -> None:
        if judge(job):
            self._suspects.add(job_id)

    def _look_again(self) -> None:
        """Look at each suspect at one moment; what does not fit now is a fault."""
        for page in pages(sorted(self._suspects | self._sightings.keys()), SUSPECTS):
            calls = [self._locate(job_id) for job_id in page]
            replies = self._store.run_many(calls)
            for job_id, job in zip(page, replies, strict=True):
                if isinstance(job, Exception):
                    raise job
                message = judge(job)
                if message:
                    self._faults.append(Fault(job_id, job.state, job.places, message))
            if len(self._faults) >= FAULTS_SHOWN:
                self._found.gaps.append(f"more than {FAULTS_SHOWN} faults: the other suspects were not looked at")
                return

    def _locate(self, job_id: str) -> scripts.Call[Location]:
        # Its own lane and all registered workers are looked at in any case; walking through every
        # lane of a long queue for every suspect would hold up the server.
        seen = self._sightings.get(job_id) or {self._seen.get(job_id, 0)}
        places = {self._places[index] for index in seen}
        return scripts.locate(
            self._keys.root,
            job_id=job_id,
            lanes=[place.removeprefix("ready:") for place in places if place.startswith("ready:")],
            workers=sorted(self._found.strangers),
        )

    def _look_at_strangers(self) -> None:
        """Lists of workers that are not in the registry: nobody watches those workers."""
        for worker in sorted(self._found.strangers):
            for kind, key in (("inbox", self._keys.inbox(worker)), ("processing", self._keys.processing(worker))):
                # In one transaction: a worker leaves the registry at the moment its lists are empty.
                with self._store.client.pipeline(transaction=True) as both:
                    registered, length = (
                        both.hexists(self._keys.workers, worker).llen(key).execute(raise_on_error=False)
                    )
                if registered is False and isinstance(length, int) and length:
                    message = (
                        f"holds {length} job(s) of a worker that is not in the registry: nobody would recover them"
                    )
                    self._faults.append(Fault(f"{kind}:{worker}", "", [f"{kind}:{worker}"], message))
