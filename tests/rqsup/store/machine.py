"""A machine that drives the scripts in any order, and looks after each step whether a job is lost or doubled."""

from __future__ import annotations

import random
import uuid
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rqsup import Client
from rqsup.inspect import check
from rqsup.job import JobState
from rqsup.store import scripts
from rqsup.store.scripts import Claimed
from tests.rqsup.store.raw import Raw, envelope

T = TypeVar("T")

QUEUES = ("p", "q")
LEVELS = st.sampled_from(("high", "normal", "low"))
WORKERS = st.sampled_from(("w1", "w2", "w3"))
OUTCOMES = st.sampled_from(("succeed", "retry", "bury", "crash", "release"))
ANY = st.integers(min_value=0, max_value=1_000)


class JobMachine(RuleBasedStateMachine):
    """Senders, three workers (dying, or falsely suspected), masters and an operator, one step at a time."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.raw = Raw(Client(url, namespace=f"m-{uuid.uuid4().hex[:12]}"))
        self.raw.register("w1", "w2", "w3")
        #: Every id that was accepted.
        self.accepted: list[str] = []
        #: Every attempt that was ever begun, with its worker: also those that are over.
        self.attempts: list[tuple[str, Claimed]] = []
        #: The one attempt of each running job that may settle it.
        self.valid: dict[str, tuple[str, int]] = {}
        #: The end that each ended job was told.
        self.ended: dict[str, str] = {}

    def teardown(self) -> None:
        keys = list(self.raw.redis.scan_iter(f"{self.raw.root}*"))
        if keys:
            self.raw.redis.delete(*keys)
        self.raw.client.close()

    @initialize(levels=st.lists(LEVELS, min_size=4, max_size=6))
    def a_busy_start(self, levels: list[str]) -> None:
        """Without it, most runs would never reach a settle."""
        for number, level in enumerate(levels):
            self.enqueue(QUEUES[number % 2], level, 60_000 if number == 0 else 0)
        self.claim("w1", 2, resume=False, wait=False)

    @rule(queue=st.sampled_from(QUEUES), level=LEVELS, delay_ms=st.sampled_from((0, 0, 60_000)))
    def enqueue(self, queue: str, level: str, delay_ms: int) -> None:
        job_id = f"j{len(self.accepted)}"
        assert self.raw.enqueue(job_id, queue, level, delay_ms=delay_ms) == ("scheduled" if delay_ms else "ready")
        self.accepted.append(job_id)

    @rule(
        queues=st.lists(st.sampled_from(QUEUES), min_size=2, max_size=5),
        level=LEVELS,
        delay_ms=st.sampled_from((0, 60_000)),
    )
    def enqueue_many(self, queues: list[str], level: str, delay_ms: int) -> None:
        """In one call; the last of them twice, and delayed or not."""
        first = len(self.accepted)
        calls = [
            scripts.enqueue(
                self.raw.root, job_id=f"j{first + number}", queue=queue, level=level,
                envelope=envelope(f"j{first + number}"), delay_ms=delay_ms * (number % 2),
            )
            for number, queue in enumerate(queues)
        ]  # fmt: skip
        verdicts = self.raw.run(scripts.enqueue_many(self.raw.root, [*calls, calls[-1]]))
        expected = ["scheduled" if delay_ms and number % 2 else "ready" for number in range(len(queues))]
        assert verdicts == [*expected, "exists"]
        self.accepted += [f"j{first + number}" for number in range(len(queues))]

    @precondition(lambda self: self.accepted)
    @rule(pick=ANY)
    def enqueue_again(self, pick: int) -> None:
        assert self.raw.enqueue(self.pick(self.accepted, pick)) == "exists"

    @rule(worker=WORKERS, count=st.integers(1, 3), resume=st.booleans(), wait=st.booleans())
    def claim(self, worker: str, count: int, resume: bool, wait: bool) -> None:
        self.begin(worker, self.raw.claim(worker, count, QUEUES, resume=resume, wait=wait).jobs)

    @rule(worker=WORKERS, move=st.booleans(), begin=st.booleans())
    def wait_on(self, worker: str, move: bool, begin: bool) -> None:
        """A hand-over, with or without the `begin` behind it; which may also come late, over a connection that was given up."""
        if move:
            self.raw.redis.lmove(self.raw.keys.inbox(worker), self.raw.keys.processing(worker), "RIGHT", "LEFT")
        if begin:
            self.begin(worker, self.raw.run(scripts.begin(self.raw.root, worker=worker)).jobs)

    @precondition(lambda self: self.attempts)
    @rule(pick=ANY, outcome=OUTCOMES, by=st.sampled_from(("itself", "w1", "w2")), delay_ms=st.sampled_from((0, 60_000)))
    def settle(self, pick: int, outcome: str, by: str, delay_ms: int) -> None:
        owner, job = self.pick(self.attempts, pick)
        worker = owner if by == "itself" else by
        allowed = self.valid.get(job.id) == (worker, job.token)
        # The delay stands for the limit of crashes too: 60,000 are never reached, 0 buries at once.
        number = 60_000 if outcome == "succeed" else delay_ms

        verdict = self.raw.settle(job, outcome, b"{}", number, worker)

        assert (verdict == "ok") == allowed, f"{job.id}: {outcome} by {worker} with token {job.token} was {verdict}"
        if allowed:
            del self.valid[job.id]
            dead = outcome == "bury" or (outcome == "crash" and not delay_ms)
            self.end(job.id, "succeeded" if outcome == "succeed" else "dead" if dead else "")

    @precondition(lambda self: self.valid)
    @rule(pick=ANY)
    def settle_and_claim_next(self, pick: int) -> None:
        job_id = self.pick(sorted(self.valid), pick)
        worker, token = self.valid.pop(job_id)
        settlement = scripts.Settlement(job_id, token, "succeed", b"1", 60_000)

        settled = self.raw.settle_all([settlement], count=1, queues=QUEUES, worker=worker)

        assert settled.verdicts == ["ok"]
        self.end(job_id, "succeeded")
        self.begin(worker, settled.jobs)

    @precondition(lambda self: self.attempts)
    @rule(worker=WORKERS, order=st.randoms(use_true_random=False), count=st.integers(0, 3))
    def settle_many(self, worker: str, order: random.Random, count: int) -> None:
        """All attempts that one worker ever began, in any order, in one call; only the valid ones count."""
        mine = [job for owner, job in self.attempts if owner == worker]
        order.shuffle(mine)
        allowed = [self.valid.get(job.id) == (worker, job.token) for job in mine]
        ends = [scripts.Settlement(job.id, job.token, "succeed", b"1", 60_000) for job in mine]

        settled = self.raw.settle_all(ends, count=count, queues=QUEUES, worker=worker)

        assert [verdict == "ok" for verdict in settled.verdicts] == allowed
        for job, was_allowed in zip(mine, allowed, strict=True):
            if was_allowed:
                del self.valid[job.id]
                self.end(job.id, "succeeded")
        self.begin(worker, settled.jobs)

    @rule(worker=WORKERS, crashed=st.booleans(), limit=st.sampled_from((1, 500)))
    def recover(self, worker: str, crashed: bool, limit: int) -> None:
        """A death, or a false suspicion: the attempts stay in `attempts` and may still try to settle."""
        running = sorted(job_id for job_id, (owner, _) in self.valid.items() if owner == worker)
        charged = running[0] if crashed and running else ""
        recovery = self.raw.recover(worker, charged=charged, crash_limit=2, limit=limit)
        for _ in range(len(self.accepted) + 1):
            if not recovery.left:
                break
            self.forget(recovery)
            recovery = self.raw.recover(worker, limit=limit)
        self.forget(recovery)
        assert recovery.left == 0
        self.raw.register(worker)

    @rule(worker=WORKERS)
    def suspect_a_living_worker(self, worker: str) -> None:
        self.raw.register(worker)
        assert self.raw.recover(worker, beat="0").alive

    @rule(limit=st.sampled_from((1, 500)))
    def time_passes(self, limit: int) -> None:
        due = dict.fromkeys(self.raw.scheduled(), 1)
        if due:
            self.raw.redis.zadd(self.raw.keys.scheduled, due)
        self.raw.run(scripts.promote(self.raw.root, limit=limit))

    @precondition(lambda self: self.accepted)
    @rule(pick=ANY)
    def cancel(self, pick: int) -> None:
        job_id = self.pick(self.accepted, pick)
        if self.raw.run(scripts.cancel(self.raw.root, job_id=job_id, ttl_ms=60_000)) == "cancelled":
            self.end(job_id, "cancelled")

    @precondition(lambda self: self.accepted)
    @rule(pick=ANY)
    def replay(self, pick: int) -> None:
        job_id = self.pick(self.accepted, pick)
        was_dead = self.ended.get(job_id) == "dead"
        assert (self.raw.run(scripts.replay(self.raw.root, job_id=job_id)) == "ready") == was_dead
        if was_dead:
            del self.ended[job_id]

    @rule()
    def server_forgets_its_scripts(self) -> None:
        self.raw.redis.script_flush()

    @invariant()
    def every_job_is_in_exactly_one_place(self) -> None:
        report = check(self.raw.client.store, self.raw.keys)
        assert report.faults == []

    @invariant()
    def nothing_accepted_is_lost_and_an_end_is_an_end(self) -> None:
        with self.raw.redis.pipeline(transaction=False) as pipeline:
            for job_id in self.accepted:
                pipeline.hget(self.raw.keys.job(job_id), "state")
            states = [(state or b"").decode() for state in pipeline.execute()]
        for job_id, state in zip(self.accepted, states, strict=True):
            assert state in set(JobState), f"{job_id} is lost"
            assert state == self.ended.get(job_id, state)
            assert (state == "active") == (job_id in self.valid)

    def begin(self, worker: str, jobs: list[Claimed]) -> None:
        for job in jobs:
            older = [attempt.token for _, attempt in self.attempts if attempt.id == job.id]
            assert job.token > max(older, default=0)
            self.attempts.append((worker, job))
            self.valid[job.id] = (worker, job.token)

    def forget(self, recovery: scripts.Recovery) -> None:
        for job_id in recovery.returned + recovery.buried:
            self.valid.pop(job_id, None)
        for job_id in recovery.buried:
            self.end(job_id, "dead")

    def end(self, job_id: str, state: str) -> None:
        if state:
            assert self.ended.setdefault(job_id, state) == state

    @staticmethod
    def pick(options: list[T], number: int) -> T:
        return options[number % len(options)]


def machine(url: str) -> type[RuleBasedStateMachine]:
    """A machine for one server: hypothesis makes each with no arguments."""

    class Machine(JobMachine):
        def __init__(self) -> None:
            super().__init__(url)

    return Machine
