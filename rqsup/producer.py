"""The producer: streams a directory tree into a queue, one job for each file."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import redis

from rqsup.client import Client
from rqsup.envelope import check_name, new_id
from rqsup.errors import ConfigError, EnqueueError, InvalidJob, PayloadTooLarge, RedisUnavailable
from rqsup.globs import GlobSet
from rqsup.job import LEVEL_LABELS, Level
from rqsup.ratelimit import TokenBucket
from rqsup.request import Request
from rqsup.settings import ProducerSettings
from rqsup.store.connection import UNAVAILABLE
from rqsup.store.keys import lanes
from rqsup.walk import Found, Walk

_log = logging.getLogger("rqsup.producer")
T = TypeVar("T")

#: Pause between two looks at a queue that is full, seconds.
FULL_PAUSE_S = 0.05
#: First and longest pause before a chunk is sent again, seconds.
RESEND_PAUSE_S, RESEND_CAP_S = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a producer has come. Files found are sent, or about to be."""

    found: int = 0
    sent: int = 0
    excluded: int = 0
    refused: int = 0
    unreadable: int = 0
    skipped: int = 0


class Producer:
    """Sends a job for each file of a tree, no faster than its limits allow.

    1. Streams: it holds one batch of paths, however many files there are.
    2. Keeps to `producer.rate`, and pauses while the queue holds `producer.max_queue_length` jobs.
    3. Sends a chunk again, with the same ids, until Redis has accepted it: none is lost or doubled.

    All of it runs in the thread that calls `run()`; `stop` may be set from any other.

    Args:
        settings: what to send; see `faults`.
        stop: ends the run within 0.1 s, also out of a pause.
        on_sent: called with the jobs of each chunk, after Redis has accepted them.
        on_progress: called after each chunk.

    Raises:
        ConfigError: the settings have faults.
    """

    def __init__(
        self,
        client: Client,
        settings: ProducerSettings,
        *,
        stop: threading.Event,
        on_sent: Callable[[Sequence[Request]], None] = lambda _: None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        found_faults = faults(settings)
        if found_faults:
            raise ConfigError(found_faults, origin="producer")
        self._client = client
        self._settings = settings
        self._stop = stop
        self._on_sent = on_sent
        self._on_progress = on_progress
        self._bucket = TokenBucket(settings.rate, settings.burst) if settings.rate else None
        self._levels = [(GlobSet([glob]), label) for glob, label in settings.levels.items()]
        self._lanes = [client.keys.ready(lane) for lane in lanes([settings.queue])]
        self._walk = Walk(Path(settings.root), include=GlobSet(settings.include), exclude=GlobSet(settings.exclude))
        self._sent = 0

    @property
    def progress(self) -> Progress:
        """How far it has come; may be read from any thread."""
        met = self._walk.counts
        return Progress(met.found, self._sent, met.excluded, met.refused, met.unreadable, met.skipped)

    def run(self) -> Progress:
        """Send the whole tree, or as much as was accepted before `stop` was set."""
        batch: list[Request] = []
        for found in self._walk:
            batch.append(self._request(found))
            if len(batch) >= self._settings.batch:
                self._send_batch(batch)
                batch = []
            if self._stop.is_set():
                break
        self._send_batch(batch)
        self._on_progress(self.progress)
        return self.progress

    def _request(self, found: Found) -> Request:
        level = next((label for globs, label in self._levels if globs.matches(found.relative)), Level.NORMAL)
        # The id is chosen before sending, so that sending again is recognised as a repeat.
        return Request(self._settings.task, (found.path,), job_id=new_id(), queue=self._settings.queue, priority=level)

    def _send_batch(self, batch: list[Request]) -> None:
        while batch and not self._stop.is_set():
            room = self._room(len(batch))
            self._send_at_rate(batch[:room])
            batch = batch[room:]

    def _room(self, wanted: int) -> int:
        """Wait until the queue has room; return for how many of the jobs wanted, 0 when stopped."""
        most = self._settings.max_queue_length
        if not most:
            return wanted
        while not self._stop.is_set():
            length = self._persist(self._queue_length)
            if length is not None and length < most:
                return min(wanted, most - length)
            self._stop.wait(FULL_PAUSE_S)
        return 0

    def _queue_length(self) -> int:
        with self._client.store.client.pipeline(transaction=False) as pipeline:
            for lane in self._lanes:
                pipeline.llen(lane)
            try:
                return sum(pipeline.execute())
            except UNAVAILABLE as fault:
                raise RedisUnavailable(f"Redis does not answer: {fault}") from fault
            except redis.ResponseError as fault:
                raise EnqueueError(f"Redis refused: {fault}") from fault

    def _send_at_rate(self, chunk: list[Request]) -> None:
        while chunk and not self._stop.is_set():
            granted = self._bucket.take(len(chunk)) if self._bucket else len(chunk)
            if granted:
                self._send(chunk[:granted])
                chunk = chunk[granted:]
            elif self._bucket:
                self._stop.wait(self._bucket.pause_s())

    def _send(self, chunk: list[Request]) -> None:
        if self._persist(lambda: self._client.enqueue_many(chunk)) is None:
            return
        self._sent += len(chunk)
        self._on_sent(chunk)
        self._on_progress(self.progress)

    def _persist(self, act: Callable[[], T]) -> T | None:
        """Do it until it succeeds; None when stopped before. Only what sending again cannot cure is raised."""
        pause, tries = RESEND_PAUSE_S, 0
        while True:
            try:
                return act()
            except (InvalidJob, PayloadTooLarge):
                raise
            except (RedisUnavailable, EnqueueError) as fault:
                tries += 1
                if tries & (tries - 1) == 0:  # 1, 2, 4, 8 …: a long outage must not fill the log
                    _log.warning("not accepted, trying again (%d): %s", tries, fault)
            if self._stop.wait(pause):
                return None
            pause = min(pause * 2, RESEND_CAP_S)


def faults(settings: ProducerSettings) -> list[str]:
    """What is wrong with the producer's settings, each with its key; empty when it can run."""
    found = []
    if not settings.root:
        found.append("producer.root: name the directory to walk")
    elif not Path(settings.root).is_dir():
        found.append(f"producer.root: {settings.root} is not a directory")
    elif not os.access(settings.root, os.R_OK | os.X_OK):
        found.append(f"producer.root: {settings.root} cannot be read by this user")
    found += _name_faults(settings)
    for key, globs in (("include", settings.include), ("exclude", settings.exclude), ("levels", settings.levels)):
        found += _glob_faults(f"producer.{key}", globs)
    found += [
        f"producer.levels: {glob!r} has the unknown level {label!r}; choose one of {', '.join(LEVEL_LABELS)}"
        for glob, label in settings.levels.items()
        if label not in LEVEL_LABELS
    ]
    return found


def _name_faults(settings: ProducerSettings) -> list[str]:
    if not settings.task:
        return ["producer.task: name the task that each file is sent to"]
    found = []
    for key, value in (("task", settings.task), ("queue", settings.queue)):
        try:
            check_name(f"{key} name", value)
        except InvalidJob as fault:
            found.append(f"producer.{key}: {fault}")
    return found


def _glob_faults(key: str, globs: Iterable[str]) -> list[str]:
    found = []
    for glob in globs:
        try:
            GlobSet([glob])
        except ValueError as fault:
            found.append(f"{key}: {fault}")
    return found
