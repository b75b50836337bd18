"""One job, from its bytes to how it ended."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from rqsup.context import JobContext, current_job
from rqsup.envelope import Envelope
from rqsup.errors import JobShutdown, JobTimeout, NoCurrentJob
from rqsup.retry import Backoff
from rqsup.settings import LimitSettings, Settings, WorkerSettings
from rqsup.store.scripts import Claimed, Settlement
from rqsup.task import _registry, task
from rqsup.workers.alarm import Alarm
from rqsup.workers.run import Runner
from rqsup.workers.slot import Slot, Spent, WorkerState
from tests.workers.conftest import make_runner

Run = Callable[..., Settlement]


@pytest.fixture(autouse=True)
def only_own_tasks() -> Iterator[None]:
    """Each test declares task `t` anew."""
    before = dict(_registry)
    yield
    _registry.clear()
    _registry.update(before)


@pytest.fixture
def run(runner: Runner) -> Run:
    """Declares a function as task `t` and runs one job of it."""
    return functools.partial(run_on, runner)


def settle(runner: Runner, job: Claimed, *, stopping: bool = False) -> Settlement:
    """Run a job that is not given up."""
    settled = runner.run(job, lambda: stopping)
    assert settled
    return settled


def run_on(runner: Runner, function: Callable[..., Any], *, errors: int = 0, crashes: int = 0, job_id: str = "job-1",
           stopping: bool = False, envelope: dict[str, Any] | None = None, **options: Any) -> Settlement:  # fmt: skip
    _registry.pop("t", None)
    task(name="t", **options)(function)
    data = msgspec.json.encode(Envelope(id=job_id, task="t", **(envelope or {})))
    return settle(runner, Claimed(job_id, 4, errors, crashes, data), stopping=stopping)


def error_of(settlement: Settlement) -> dict[str, Any]:
    return dict(msgspec.json.decode(settlement.payload))


def fail(fault: BaseException) -> Any:
    raise fault


def test_a_result_is_settled_with_the_jobs_token(run: Run, slot: Slot) -> None:
    settled = run(lambda *args, **kwargs: [args, kwargs], envelope={"args": [1, "a"], "kwargs": {"x": None}})

    assert settled == Settlement("job-1", 4, "succeed", b'[[1,"a"],{"x":null}]', 86_400_000)
    assert (slot.succeeded, slot.retried, slot.buried) == (1, 0, 0)
    assert slot.current_job() is None


def test_the_slot_shows_the_job_and_its_deadlines_while_it_runs(run: Run, slot: Slot) -> None:
    seen = []

    run(lambda: seen.append((slot.state, slot.current_job())), timeout=2)

    [(state, job)] = seen
    assert state == WorkerState.BUSY
    assert job is not None
    assert (job.id, job.task) == ("job-1", "t")
    assert job.started <= time.monotonic()
    assert job.soft_deadline == pytest.approx(job.started + 2)
    assert job.hard_deadline == pytest.approx(job.started + 2 + WorkerSettings().kill_grace)


@pytest.mark.parametrize("result", [object(), {1, object()}, lambda: None, "half a pair \udce9", 1j])
def test_a_result_that_is_no_json_is_buried_and_not_done_again(run: Run, slot: Slot, result: Any) -> None:
    settled = run(lambda: result)

    assert settled.outcome == "bury"
    assert error_of(settled)["type"] == "ResultError"
    assert slot.buried == 1


def test_a_result_without_end_is_no_json(run: Run) -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert error_of(run(lambda: endless))["type"] == "ResultError"


def test_a_result_may_have_as_many_bytes_as_the_limit(slot: Slot, alarm: Alarm) -> None:
    runner = make_runner(slot, alarm, Settings(limits=LimitSettings(result_bytes=10)))

    assert run_on(runner, lambda: "x" * 8).outcome == "succeed"
    settled = run_on(runner, lambda: "x" * 9)
    assert settled.outcome == "bury"
    assert error_of(settled)["message"] == "the result has 11 bytes, allowed are 10 (limits.result_bytes)"


def test_the_error_of_a_failed_attempt_says_what_where_and_when(run: Run, slot: Slot) -> None:
    settled = run(lambda: fail(ValueError("no such user")), errors=1, crashes=1)

    error = error_of(settled)
    assert settled.outcome == "retry"
    assert (error["type"], error["message"], error["attempt"]) == ("ValueError", "no such user", 3)
    assert error["traceback"].startswith("Traceback (most recent call last)")
    assert "in fail" in error["traceback"]
    assert (error["worker"], error["host"], error["pid"], error["generation"]) == ("host.1.7", "host", os.getpid(), 2)
    assert abs(error["at_ms"] / 1000 - time.time()) < 60
    assert slot.retried == 1


class Custom(BaseException):
    """An error outside Exception."""


@pytest.mark.parametrize(
    "fault", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), Custom("x"), JobTimeout("x"), MemoryError()]
)
def test_whatever_a_job_raises_is_the_jobs_own_end(run: Run, slot: Slot, fault: BaseException) -> None:
    settled = run(lambda: fail(fault))

    assert settled.outcome == "retry"
    assert error_of(settled)["type"] == type(fault).__name__
    assert slot.current_job() is None


class Unspeakable(Exception):
    """An error that fails when it is asked what it is."""

    def __str__(self) -> str:
        raise SystemExit(3)


def deep() -> Any:
    return deep()


@pytest.mark.parametrize(
    "fault", [Unspeakable(), OSError(2, "no file", "caf\udce9"), ExceptionGroup("many", [ValueError("\udce9")])]
)
def test_an_error_that_cannot_be_told_as_it_is_still_ends_only_its_job(run: Run, fault: BaseException) -> None:
    settled = run(lambda: fail(fault))

    assert settled.outcome == "retry"
    assert error_of(settled)["type"] == type(fault).__name__


def test_endless_recursion_ends_only_its_job(run: Run) -> None:
    settled = run(deep)

    assert error_of(settled)["type"] == "RecursionError"
    assert len(error_of(settled)["traceback"]) <= 16_000


def test_a_huge_message_is_cut(run: Run) -> None:
    settled = run(lambda: fail(ValueError("x" * 1_000_000)))

    assert len(error_of(settled)["message"]) == 2_000
    assert len(settled.payload) < 40_000


@pytest.mark.parametrize(
    ("declared", "envelope", "errors", "outcome"),
    [
        (3, None, 1, "retry"),
        (3, None, 2, "bury"),
        (3, 5, 2, "retry"),
        (3, 1, 0, "bury"),
        (1, None, 0, "bury"),
        (1, None, 9, "bury"),
    ],
)
def test_the_last_attempt_is_buried(run: Run, declared: int, envelope: int | None, errors: int, outcome: str) -> None:
    options = {"max_attempts": envelope} if envelope else {}

    settled = run(lambda: fail(ValueError()), max_attempts=declared, errors=errors, envelope=options)

    assert settled.outcome == outcome


def test_a_worker_that_died_in_the_job_is_no_error_of_the_job(run: Run) -> None:
    assert run(lambda: fail(ValueError()), max_attempts=2, crashes=2).outcome == "retry"


def test_the_delay_of_a_retry_is_the_tasks_backoff(run: Run) -> None:
    settled = run(lambda: fail(ValueError()), errors=2, backoff=Backoff(first_s=3, jitter=0))

    assert settled.number == 12_000


def test_a_backoff_that_fails_does_not_harm_the_worker(run: Run) -> None:
    settled = run(lambda: fail(ValueError("boo")), backoff=Backoff(first_s=float("inf"), cap_s=float("inf")))

    assert settled.outcome == "retry"
    assert settled.number > 0


@pytest.mark.parametrize(
    "payload", [b"", b"\xff\x00", b"[]", b"{}", b'{"id":"x"}', b'{"id":"x","task":"t","v":99}', b"[" * 100_000]
)
def test_bytes_that_are_no_envelope_are_buried(runner: Runner, payload: bytes, slot: Slot) -> None:
    settled = settle(runner, Claimed("job-1", 4, 0, 0, payload))

    assert (settled.id, settled.token, settled.outcome) == ("job-1", 4, "bury")
    assert error_of(settled)["type"] == "EnvelopeError"
    assert slot.buried == 1


@pytest.mark.parametrize("job_id", ["x" * 500, "caf\udce9", "a b"])
def test_an_id_outside_the_alphabet_is_buried_and_nothing_is_run(run: Run, runner: Runner, job_id: str) -> None:
    ran = []

    settled = run(lambda: ran.append(1), job_id="job-1", envelope={})
    data = msgspec.json.encode(Envelope(id="job-1", task="t"))
    foreign = settle(runner, Claimed(job_id, 4, 0, 0, data))

    assert settled.outcome == "succeed"
    assert foreign.outcome == "bury"
    assert ran == [1]


def test_a_task_that_nobody_declared_is_deferred_with_the_names_that_exist(runner: Runner) -> None:
    task(name="a.known")(len)

    settled = settle(runner, Claimed("job-1", 4, 0, 0, b'{"id":"job-1","task":"os.system"}'))

    error = error_of(settled)
    assert (settled.outcome, settled.number) == ("defer", 10_000)
    assert error["type"] == "UnknownTask"
    assert "'os.system'" in error["message"]
    assert "a.known" in error["message"]


def test_arguments_that_do_not_fit_fail_the_attempt(run: Run) -> None:
    settled = run(lambda: None, envelope={"args": [1, 2]})

    assert error_of(settled)["type"] == "TypeError"


def test_a_generator_is_refused_in_words(run: Run) -> None:
    def handler() -> Iterator[int]:
        yield 1

    settled = run(handler)

    assert settled.outcome == "bury"
    assert "generator" in error_of(settled)["message"]


@pytest.mark.parametrize("timeout", [{"timeout": 0.05}, {"envelope": {"timeout_s": 0.05}, "timeout": 60}])
def test_a_job_over_its_time_is_stopped(run: Run, slot: Slot, timeout: dict[str, Any]) -> None:
    settled = run(lambda: time.sleep(10), **timeout)

    assert settled.outcome == "retry"
    assert error_of(settled)["type"] == "JobTimeout"
    assert slot.current_job() is None


def test_a_handlers_except_exception_does_not_swallow_the_timeout(run: Run) -> None:
    def handler() -> None:
        try:
            time.sleep(10)
        except Exception:  # noqa: BLE001 - what handlers do
            return

    assert error_of(run(handler, timeout=0.05))["type"] == "JobTimeout"


class LateAlarm(Alarm):
    """An alarm that rings in the last moment: after the handler returned, before it is disarmed."""

    late = True

    def disarm(self) -> None:
        if self.late:
            self.late = False
            raise JobTimeout("late")
        super().disarm()


def test_a_timeout_in_the_very_last_moment_leaves_no_job_behind(slot: Slot, alarm: Alarm) -> None:
    late = LateAlarm("worker 1 [mail] gen 2", lambda: False)
    late.install()

    settled = run_on(make_runner(slot, late), lambda: 1)

    assert error_of(settled)["type"] == "JobTimeout"
    assert slot.current_job() is None
    assert not late._armed
    with pytest.raises(NoCurrentJob):
        current_job()


def test_a_process_that_a_job_forked_never_returns_into_the_worker(run: Run) -> None:
    settled = run(os.fork)

    child = int(settled.payload)
    assert child > 0  # else this is the child, and the test runs twice
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_the_context_tells_a_handler_who_it_is(run: Run, slot: Slot) -> None:
    slot.lease_until = time.monotonic() + 10
    seen: list[JobContext] = []

    run(lambda: seen.append(current_job()), errors=1, crashes=1, envelope={"queue": "mail"})

    [job] = seen
    assert (job.id, job.task, job.queue, job.attempt, job.token, job.worker) == ("job-1", "t", "mail", 3, 4, "host.1.7")
    assert 9 < job.lease_left_s <= 10
    assert not job.lease_lost
    assert not job.stopping
    assert job.log.bind() is not None


def test_a_handler_sees_that_its_lease_is_lost_and_that_it_should_stop(run: Run, slot: Slot) -> None:
    slot.lease_until = time.monotonic() - 1
    seen: list[JobContext] = []

    run(lambda: seen.append(current_job()), stopping=True)

    assert seen[0].lease_lost
    assert seen[0].stopping


def test_there_is_no_current_job_outside_one(run: Run) -> None:
    run(lambda: fail(ValueError()))

    with pytest.raises(NoCurrentJob):
        current_job()


# Coroutines.


async def who() -> str:
    await asyncio.sleep(0)
    return current_job().id


def test_each_coroutine_sees_its_own_job(run: Run) -> None:
    results = [run(who, job_id=job_id).payload for job_id in ("one", "two")]

    assert results == [b'"one"', b'"two"']


def test_a_plain_function_that_returns_a_coroutine_is_awaited(run: Run) -> None:
    def handler() -> Any:
        return who()

    assert run(handler).payload == b'"job-1"'


def test_a_coroutine_over_its_time_is_cancelled_and_cleans_up(run: Run) -> None:
    cleaned = []

    async def handler() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append(True)

    settled = run(handler, timeout=0.05)

    assert error_of(settled)["type"] == "JobTimeout"
    assert error_of(settled)["message"] == "allowed are 0.05 s"
    assert cleaned == [True]


def test_a_coroutine_that_blocks_the_loop_is_stopped_by_the_alarm(run: Run) -> None:
    async def handler() -> None:
        time.sleep(10)  # noqa: ASYNC251 - the mistake under test

    assert error_of(run(handler, timeout=0.05))["type"] == "JobTimeout"


def test_a_timeout_of_the_handlers_own_is_not_taken_for_the_jobs(run: Run) -> None:
    async def handler() -> None:
        await asyncio.wait_for(asyncio.sleep(10), 0.01)

    assert error_of(run(handler))["type"] == "TimeoutError"


def test_a_coroutine_that_does_not_let_itself_be_cancelled_is_not_there_in_the_next_job(
    slot: Slot, alarm: Alarm
) -> None:
    runner = make_runner(slot, alarm, Settings(workers=WorkerSettings(kill_grace=0.2)))
    steps = []

    async def stubborn() -> None:
        while True:
            steps.append(1)
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async def next_one() -> int:
        before = len(steps)
        await asyncio.sleep(0.05)
        return len(steps) - before

    assert error_of(run_on(runner, stubborn, timeout=0.05))["type"] == "JobTimeout"
    assert run_on(runner, next_one).payload == b"0"


@pytest.mark.parametrize("fault", [ValueError("x"), SystemExit(1), KeyboardInterrupt()])
def test_what_a_coroutine_raises_is_the_jobs_own_end(run: Run, fault: BaseException) -> None:
    async def handler() -> None:
        raise fault

    assert error_of(run(handler))["type"] == type(fault).__name__
    assert run(who).payload == b'"job-1"'


def test_a_job_that_is_given_up_is_not_settled(runner: Runner, slot: Slot) -> None:
    @task(name="t.given_up")
    def given_up() -> None:
        raise JobShutdown

    data = msgspec.json.encode(Envelope(id="job-1", task="t.given_up"))

    assert runner.run(Claimed("job-1", 4, 0, 0, data), lambda: True) is None
    assert (slot.retried, slot.buried, slot.current_job()) == (0, 0, None)


def test_a_job_shutdown_that_the_job_made_up_is_an_error(run: Run) -> None:
    def made_up() -> None:
        raise JobShutdown

    assert error_of(run(made_up))["type"] == "JobShutdown"


def test_a_process_is_spent_after_a_soft_timeout_also_when_the_job_swallowed_it(runner: Runner) -> None:
    def swallow() -> str:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:  # noqa: BLE001 - that is the point
            return "went on"

    assert run_on(runner, lambda: None, timeout=5).outcome == "succeed"
    before = runner.spent

    assert run_on(runner, swallow, timeout=0.05).outcome == "succeed"

    assert (before, runner.spent) == (Spent.NO, Spent.SOFT_TIMEOUT)


def test_a_process_is_spent_after_a_coroutine_was_cancelled_at_its_timeout(runner: Runner) -> None:
    async def late() -> None:
        await asyncio.sleep(5)

    run_on(runner, late, timeout=0.05)

    assert runner.spent is Spent.SOFT_TIMEOUT
