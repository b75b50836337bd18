"""The demo's course: send a tree, kill a worker in the middle, wait for the end, count."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rqsup.check import check
from rqsup.client import Client
from rqsup.envelope import new_id
from rqsup.globs import GlobSet
from rqsup.producer import Producer, Progress
from rqsup.request import Request
from rqsup.settings import ProducerSettings
from rqsup.supervisor.cli.demo.facts import Counts, Facts, Pace, read_counts, read_files
from rqsup.supervisor.cli.demo.stage import QUEUE, TASK, Stage
from rqsup.supervisor.cli.demo.strike import Hit, ambush, frozen, strike
from rqsup.supervisor.cli.demo.tally import Ledger, Tally, tally
from rqsup.supervisor.cli.demo.view import View
from rqsup.supervisor.snapshot import Snapshot
from rqsup.walk import Walk

#: Up to this many files, workers start frozen: the whole tree is done before one could be caught by chance.
SMALL = 1000
#: Seconds between two pictures, and between two looks at whether half is done.
PICTURE_S, MIDDLE_S = 0.1, 0.005
#: Seconds without any change, and with no worker busy, after which what is left counts as lost.
STALL_S = 60.0
#: Passes over some more files when no kill has hit a worker in a job, and how many files each has.
ENCORES, ENCORE_FILES = 5, 20
#: Passes with the tree's own files, before a long file takes their place.
PATIENCE = 2
#: The long file: so many bytes, none of them on the disk. To read it takes a tenth of a second and more, a look a few ms.
LONG_BYTES, LONG_COPIES = 256 << 20, 4


class Stopped(Exception):
    """The demo was told to end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo came to."""

    files: int
    progress: Progress
    tally: Tally
    counts: Counts
    hit: Hit | None
    #: The worker on which the killed worker's job ended.
    recovered_on: str | None
    duration_s: float
    #: Jobs sent a second time, because no kill had hit a worker in a job.
    encore_jobs: int
    #: What the state checker found wrong.
    faults: list[str]

    @property
    def lost(self) -> int:
        """Accepted jobs that did not end, by their records and by the counters: the worse of the two."""
        return max(self.tally.lost, self.tally.accepted - self.counts.ended)

    @property
    def well(self) -> bool:
        """Nothing was lost, and every job is where it belongs."""
        return self.lost == 0 and not self.faults


def empty(directory: Path) -> bool:
    """Whether there is no file to make a job of."""
    return next(iter(_walk(directory)), None) is None


class Play:
    """One run of the demo. `run()` is called in the main thread; sending, counting and striking have their own."""

    def __init__(
        self, stage: Stage, directory: Path, view: View, client: Client, ledger: Ledger, *, interrupted: threading.Event
    ) -> None:  # fmt: skip
        self._interrupted = interrupted
        self._stage, self._directory, self._view, self._client, self._ledger = stage, directory, view, client, ledger
        self._stop = threading.Event()
        #: Set when the producer may begin; the striker decides that.
        self._curtain = threading.Event()
        self._counting = _walk(directory)
        self._small = sum(1 for _ in islice(_walk(directory), SMALL + 1)) <= SMALL
        sending = ProducerSettings(root=str(directory), task=TASK, queue=QUEUE, max_queue_length=20_000, batch=250)
        self._producer = Producer(client, sending, stop=self._stop, on_sent=ledger.add)
        self._pace = Pace()

    def run(self) -> Outcome:
        """Play it to the end.

        Raises:
            RqsupError: the master ended, or Redis went away for good.
        KeyboardInterrupt: it was interrupted.
        """
        with self._threads() as (count, produce, hunt):
            self._curtain.wait()
            began = time.monotonic()
            self._await_end(began, count, produce, hunt)
            hit, encore_jobs = hunt.result(), 0
            if hit is None and self._all_ended():
                hit, encore_jobs = self._encores()
                self._view.show(self._facts(began, counted=True))
            duration_s = time.monotonic() - began
        return self._outcome(produce.result(), hit, encore_jobs, duration_s)

    @contextmanager
    def _threads(self) -> Iterator[tuple[Future[Any], Future[Progress], Future[Hit | None]]]:
        with ThreadPoolExecutor(3, "rqsup-demo") as pool:
            try:
                count = pool.submit(self._count)
                produce = pool.submit(self._produce)
                yield count, produce, pool.submit(self._strike, count, produce)
            finally:
                self._stop.set()
                self._curtain.set()

    def _count(self) -> None:
        for _ in self._counting:
            if self._stop.is_set():
                return

    def _produce(self) -> Progress:
        self._curtain.wait()
        return self._producer.run()

    def _strike(self, count: Future[Any], produce: Future[Progress]) -> Hit | None:
        try:
            if self._small:
                with frozen(self._look) as pids:
                    self._curtain.set()
                    produce.result()
                    return self._tell_hit(strike(self._look, pids, self._all_ended))
            self._curtain.set()
            while not self._over(produce):
                if self._past_middle(count, produce):
                    with frozen(self._look) as pids:
                        hit = strike(self._look, pids, self._all_ended)
                    if hit:
                        return self._tell_hit(hit)
                self._stop.wait(MIDDLE_S)
        except Stopped:
            pass
        finally:
            self._curtain.set()  # whatever happened here, nobody may wait for it for ever
        return None

    def _past_middle(self, count: Future[Any], produce: Future[Progress]) -> bool:
        total = self._producer.progress.sent if produce.done() else self._counting.counts.found
        known = count.done() or produce.done()
        return known and read_counts(self._client, QUEUE).ended * 2 >= total

    def _over(self, produce: Future[Progress]) -> bool:
        return self._stop.is_set() or (produce.done() and self._all_ended())

    def _all_ended(self) -> bool:
        """Whether every job accepted so far has ended."""
        return read_counts(self._client, QUEUE).ended >= self._ledger.count

    def _await_end(self, began: float, count: Future[Any], produce: Future[Progress], hunt: Future[Any]) -> None:
        changed_at, last = time.monotonic(), None
        while True:
            for future in (count, produce, hunt):
                if future.done():
                    future.result()  # raises what ended it
            self._heed_interrupt()
            facts = self._facts(began, count.done())
            self._view.show(facts)
            if produce.done() and hunt.done() and facts.counts.ended >= self._ledger.count:
                return
            if facts.counts != last or facts.snapshot.busy:
                changed_at, last = time.monotonic(), facts.counts
            if time.monotonic() - changed_at > STALL_S:
                self._view.event(f"nothing has changed for {STALL_S:g} s: what has not ended counts as lost")
                return
            time.sleep(PICTURE_S)

    def _heed_interrupt(self) -> None:
        if self._interrupted.is_set():
            raise KeyboardInterrupt

    def _facts(self, began: float, counted: bool) -> Facts:
        snapshot = self._stage.snapshot()
        counts = read_counts(self._client, QUEUE)
        running = [worker.job_id for worker in snapshot.workers if worker.job_id]
        return Facts(
            elapsed_s=time.monotonic() - began,
            total=max(self._counting.counts.found, counts.ended),
            total_is_final=counted,
            progress=self._producer.progress,
            counts=counts,
            per_s=self._pace.add(counts.ended),
            snapshot=snapshot,
            files=read_files(self._client, running) if running else {},
        )

    def _encores(self) -> tuple[Hit | None, int]:
        """Send some files again until a kill hits, in a bounded number of tries."""
        some = [found.path for found in islice(_walk(self._directory), SMALL)]
        # The largest take longest to read, and are the easiest to be caught at.
        paths = sorted(some, key=_size, reverse=True)[:ENCORE_FILES]
        sent = 0
        for tries in range(1, ENCORES + 1):
            # Jobs of a few microseconds are hard to catch on a busy machine.
            own = tries <= PATIENCE
            batch = paths if own else [self._long_file()] * LONG_COPIES
            what = f"{len(batch)} files are sent again" if own else f"a long file is sent {len(batch)} times"
            self._view.event(f"no worker was caught in a job so far: {what} (pass {tries})")
            hit = self._strike_at_tiny(batch) if own else self._strike_at_long(batch)
            sent += len(batch)
            self._await_encore()
            if hit:
                return self._tell_hit(hit), sent
        return None, sent

    def _strike_at_tiny(self, paths: list[str]) -> Hit | None:
        with frozen(self._stage.snapshot) as pids:
            self._send(paths)
            return strike(self._stage.snapshot, pids, self._all_ended)

    def _strike_at_long(self, paths: list[str]) -> Hit | None:
        self._send(paths)
        return ambush(self._stage.snapshot, self._all_ended)

    def _send(self, paths: list[str]) -> None:
        requests = [Request(TASK, (path,), job_id=new_id(), queue=QUEUE) for path in paths]
        self._client.enqueue_many(requests)
        self._ledger.add(requests)

    def _long_file(self) -> str:
        path = self._stage.folder / "long"
        with path.open("ab") as file:
            file.truncate(LONG_BYTES)
        return str(path)

    def _await_encore(self) -> None:
        deadline = time.monotonic() + STALL_S
        while not self._all_ended() and time.monotonic() < deadline:
            self._heed_interrupt()
            self._stage.snapshot()  # raises when the master has ended
            time.sleep(MIDDLE_S)

    def _outcome(self, progress: Progress, hit: Hit | None, encore_jobs: int, duration_s: float) -> Outcome:
        return Outcome(
            files=progress.sent,
            progress=progress,
            tally=tally(self._client, self._ledger, files=progress.sent),
            counts=read_counts(self._client, QUEUE),
            hit=hit,
            recovered_on=self._client.record(hit.job_id).worker if hit else None,
            duration_s=duration_s,
            encore_jobs=encore_jobs,
            faults=[f"job {fault.id} {fault.message}" for fault in check(self._client.store, self._client.keys).faults],
        )

    def _look(self) -> Snapshot:
        if self._stop.is_set():
            raise Stopped
        return self._stage.snapshot()

    def _tell_hit(self, hit: Hit | None) -> Hit | None:
        if hit:
            self._view.event(
                f"killed worker {hit.worker.number} (pid {hit.worker.pid}) by SIGKILL in the middle of a job: "
                f"the job was back in its queue after {hit.back_after_ms:.1f} ms"
            )
        return hit


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0  # it has vanished; its job will say so


def _walk(directory: Path) -> Walk:
    return Walk(directory, include=GlobSet(["**"]), exclude=GlobSet([]))
