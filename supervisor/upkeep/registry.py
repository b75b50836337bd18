"""The registry of workers in Redis: beats for the living, recovery for the dead.

The master holds its workers' leases. A worker cannot lose its lease because its own code is busy,
and a wedged one, past its deadline, does lose it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from rqsup.errors import RedisRefused, RedisUnavailable
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.store import scripts
from rqsup.store.async_store import AsyncStore
from rqsup.store.keys import Keys
from rqsup.supervisor.child import Child, Death
from rqsup.supervisor.estate import RegistryEstate
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.pool import Pool, process_start
from rqsup.supervisor.snapshot import RecoveryView
from rqsup.supervisor.upkeep.debt import Debt
from rqsup.workers.slot import CurrentJob

#: Beats per `lease_ttl`: so many may fail before the lease is lost.
BEATS_PER_TTL = 3
#: Life of a registry entry's details in Redis, as a multiple of `lease_ttl`; after half of it they are sent again, though
#: nothing changed. Only for people to read: reapers judge by the beat counter.
DETAILS_TTLS = 20
#: First and longest pause between two tries to return a dead worker's jobs, seconds.
RETRY_S, RETRY_CAP_S = 0.05, 1.0
#: Recoveries kept for `status`.
RECOVERIES_KEPT = 50


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the registry says of a worker: for people, and for finding a dead predecessor's workers."""

    host: str
    #: Boot and pid namespace in which the pids below mean something.
    home: str
    pool: str
    number: int
    generation: int
    pid: int
    started: int
    master: int
    master_started: int
    state: str = ""
    task: str = ""
    job: str = ""


class Registry:
    """Beats for the pool's workers, and returns the jobs of dead ones.

    Two tasks of the master's loop: `run_beats` and `run_recoveries`. While Redis is away, the beats
    fail and debts wait; both are taken up again when it is back.
    """

    def __init__(
        self, *, store: AsyncStore, pool: Pool, settings: Callable[[], Settings], counters: dict[str, int]
    ) -> None:
        self._store = store
        self._pool = pool
        self._settings = settings
        self._counters = counters
        self._debts: deque[Debt] = deque()
        self._beat_now = asyncio.Event()
        self._owed = asyncio.Event()
        self._registered: set[str] = set()
        #: Details that Redis has of each worker, and when they were sent.
        self._told: dict[str, tuple[bytes, float]] = {}
        #: The counter of each worker in Redis; None = the script has raised it since it was read.
        self._beats: dict[str, int] | None = None
        #: Some of the workers had lost their leases, and Redis was away before it told which.
        self._in_doubt = False
        #: Jobs that workers were in when their leases were lost.
        self._lost: dict[str, CurrentJob | None] = {}
        self.recoveries: deque[RecoveryView] = deque(maxlen=RECOVERIES_KEPT)
        self.home = find_home()
        self._host = socket.gethostname()
        self._started = process_start(os.getpid())
        self._log = get_logger("registry")

    @property
    def interval_s(self) -> float:
        """Seconds between two beats."""
        return self._settings().workers.lease_ttl / BEATS_PER_TTL

    @property
    def in_debt(self) -> bool:
        """True while jobs of dead workers are not back yet."""
        return bool(self._debts)

    @property
    def indebted(self) -> set[str]:
        """Dead workers whose jobs are not back yet."""
        return {debt.worker for debt in self._debts}

    def hasten(self) -> None:
        """Beat as soon as possible: there is a worker that Redis does not know."""
        self._beat_now.set()

    def owe(self, death: Death) -> None:
        """Return a dead worker's jobs, and strike it from the registry."""
        job = death.job.id if death.job and death.charged else ""
        self._registered.discard(death.worker)
        self._lost.pop(death.worker, None)
        self.add(Debt(
            death.worker, death.number, death.pid, death.cause, job, death.seen_at, death.condemned, stack=death.stack,
            suspects=death.suspects,
        ))  # fmt: skip

    def add(self, debt: Debt) -> None:
        """Put one more debt into the line."""
        self._debts.append(debt)
        self._owed.set()

    def bequeath(self) -> RegistryEstate:
        """What the next program has to know: debts above all."""
        return RegistryEstate(list(self._debts), sorted(self._registered), self._lost, list(self.recoveries))

    def inherit(self, estate: RegistryEstate) -> None:
        """Take up what the program before this one left."""
        self._registered.update(estate.registered)
        self._lost.update(estate.lost)
        self.recoveries.extend(estate.recoveries)
        for debt in estate.debts:
            self.add(debt)

    async def run_beats(self) -> None:
        """Beat for ever."""
        while True:
            self._beat_now.clear()
            try:
                await self.beat()
            except RedisUnavailable as fault:
                self._counters["beats_failed"] += 1
                self._log.warning("beat failed", error=str(fault))
            try:
                async with asyncio.timeout(self.interval_s if self._store.ok else min(1.0, self.interval_s)):
                    await self._beat_now.wait()
            except TimeoutError:
                continue

    async def beat(self) -> None:
        """Renew the lease of each worker that is inside its deadline, in one round trip."""
        now = time.monotonic()
        vouched = {child.worker: child for child in self._pool.children.values() if _vouched(child, now)}
        if not vouched:
            if not self._store.ok:
                await self._store.command("PING")
            return
        ttl_s = self._settings().workers.lease_ttl
        for worker, child in vouched.items():
            if worker not in self._registered:
                # It may begin its first job before the answer is here; unregistered, it would get none.
                child.slot.lease_until = now + ttl_s
        added = await self._renew(vouched, now)
        for worker in added & self._registered:
            self._told.pop(worker, None)
            self._log.warning("lease was lost: another master returned this worker's jobs", worker=worker)
            slot = vouched[worker].slot
            slot.lost_at = time.monotonic()
            if slot.jobs <= 1:
                # Each of several jobs looks itself whether it began before that moment.
                self._lost[worker] = slot.current_job()
            # It may sit in a blocking command, off the list of waiting workers: nobody would ever call it.
            self._pool.wake(vouched[worker])
        for worker, child in vouched.items():
            if worker not in self._pool.children:
                self._strike_again(child)
            elif self._has_its_job(child):
                self._registered.add(worker)
                child.slot.lease_until = now + ttl_s

    async def _renew(self, vouched: dict[str, Child], now: float) -> set[str]:
        """Raise the workers' counters; answers those that were not in the registry."""
        details = {worker: msgspec.json.encode(self._details(child)) for worker, child in vouched.items()}
        life_s = self._settings().workers.lease_ttl * DETAILS_TTLS
        told = [self._told.get(worker, (b"", 0.0)) for worker in details]
        if [sent for sent, _ in told] == list(details.values()) and min(since for _, since in told) > now - life_s / 2:
            with contextlib.suppress(RedisRefused):  # as a full server does: the script may write there all the same
                return await self._renew_plainly(list(vouched))
        self._beats = None
        call = scripts.heartbeat(self._settings_root(), ttl_ms=round(life_s * 1000), details=details)
        added = await self._store.run(call)
        self._told = {worker: (sent, now) for worker, sent in details.items()}
        return set(added)

    async def _renew_plainly(self, workers: list[str]) -> set[str]:
        """One command for all workers, while there is nothing to tell of them: most beats of an idle pool."""
        key = Keys(self._settings().namespace).workers
        if self._beats is None:
            counters = await self._store.command("HMGET", key, *workers)
            self._beats = {
                worker: int(beat) if beat and beat.isdigit() else 0
                for worker, beat in zip(workers, counters, strict=True)
            }
        raised = {worker: self._beats.get(worker, 0) + 1 for worker in workers}
        self._beats |= raised
        new = await self._store.command("HSET", key, *(item for pair in raised.items() for item in pair))
        if not new and not self._in_doubt:
            return set()
        # Another master took some of them for dead, and returned their jobs: those that hold jobs are not among them.
        self._in_doubt = True
        holding = await self._store.run(scripts.holding(self._settings_root(), workers=workers))
        self._in_doubt = False
        return set(workers) - set(holding)

    def _has_its_job(self, child: Child) -> bool:
        """False while a worker is still inside a job that was given to another, whose handler must see that."""
        lost = self._lost.get(child.worker)
        if lost is not None and child.slot.current_job() == lost:
            return False
        self._lost.pop(child.worker, None)
        return True

    def _strike_again(self, child: Child) -> None:
        """Take out a worker that died while the beat was under way, which may have put it back."""
        self.add(Debt(child.worker, child.number, child.pid, "died during a beat", "", time.monotonic()))

    async def run_recoveries(self) -> None:
        """Pay debts for ever, oldest first."""
        pause_s = RETRY_S
        while True:
            if not self._debts:
                self._owed.clear()
                await self._owed.wait()
            try:
                await self._pay(self._debts[0])
                self._debts.popleft()
                pause_s = RETRY_S
            except RedisUnavailable as fault:
                self._log.warning("jobs not returned yet", worker=self._debts[0].worker, error=str(fault))
                if isinstance(fault, RedisRefused):
                    # Redis answers, and refuses this one (a key of a wrong type): the others need not wait for it.
                    self._debts.rotate(-1)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_CAP_S)

    async def _pay(self, debt: Debt) -> None:
        returned: list[str] = []
        buried: list[str] = []
        told = {
            "message": debt.cause, "worker": debt.worker, "host": self._host, "pid": debt.pid, "at_ms": int(time.time() * 1000),
        }  # fmt: skip
        cause = msgspec.json.encode(told)
        evidence = msgspec.json.encode(told | {"stack": debt.stack}) if debt.stack else cause
        left = 1
        while left:
            answer = await self._store.run(scripts.recover(
                self._settings_root(), worker=debt.worker, beat=debt.beat, cause=cause, charged=debt.charged_job,
                crash_limit=self._settings().workers.crash_limit, evidence=evidence, condemned=debt.condemned,
                suspects=debt.suspects,
            ))  # fmt: skip
            if answer.alive:
                return
            returned += answer.returned
            buried += answer.buried
            if answer.left and not answer.returned and not answer.buried:
                self._log.error("jobs cannot be returned: a key has a wrong type", worker=debt.worker, jobs=answer.left)
                break
            left = answer.left
        self._account(debt, returned, buried)

    def _account(self, debt: Debt, returned: list[str], buried: list[str]) -> None:
        self._counters["recovered"] += len(returned)
        self._counters["crashed"] += bool(debt.charged_job)
        self._counters["returned"] += len([job for job in returned if job != debt.charged_job])
        self._counters["reaped"] += debt.reaped
        if not returned and not buried:
            return
        back_after_ms = (time.monotonic() - debt.seen_at) * 1000
        self.recoveries.append(RecoveryView(
            worker=debt.worker, number=debt.number, pid=debt.pid, cause=debt.cause, jobs=returned, buried=buried,
            back_after_ms=round(back_after_ms, 3), at=time.time(),
        ))  # fmt: skip
        self._log.warning(
            "jobs returned", worker=debt.worker, cause=debt.cause, jobs=len(returned), buried=len(buried),
            after_ms=round(back_after_ms, 1),
        )  # fmt: skip

    def _settings_root(self) -> str:
        return f"rqsup:{{{self._settings().namespace}}}:"

    def _details(self, child: Child) -> Details:
        job = child.slot.current_job()
        return Details(
            host=self._host, home=self.home, pool=self._settings().pool, number=child.number,
            generation=child.assignment.generation, pid=child.pid, started=child.started_ticks, master=os.getpid(),
            master_started=self._started, state=child.state(), task=job.task if job else "", job=job.id if job else "",
        )  # fmt: skip


def _vouched(child: Child, now: float) -> bool:
    """True for a worker inside its deadlines; a wedged one loses its lease, whatever keeps it from dying."""
    if child.phase is Phase.DYING or (child.deadline is not None and now >= child.deadline):
        return False
    job = child.slot.current_job()
    return job is None or now < job.hard_deadline


def find_home() -> str:
    """The kernel boot and pid namespace of this process: only there do pids of two processes compare."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def is_running(pid: int, started: int) -> bool:
    """True while this very process runs (not a zombie, not another one with its pid)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    fields = text.rpartition(")")[2].split()
    return fields[0] not in {"Z", "X"} and int(fields[19]) == started
