"""What the death of a worker meant."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from rqsup.supervisor.child import Death, Evidence, Verdict, judge, overdue_verdict
from rqsup.supervisor.patience import Patience
from rqsup.supervisor.plan import Overdue, Phase
from rqsup.workers.assignment import EXIT_BROKEN
from rqsup.workers.endings import SIGNAL_WORDS
from rqsup.workers.slot import Order, Spent, WorkerState
from tests.supervisor.children import enter_job, make_child


def ended(code: int, status: int) -> os.waitid_result:
    return os.waitid_result((1, 0, signal.SIGCHLD, status, code))


def exited(status: int) -> os.waitid_result:
    return ended(os.CLD_EXITED, status)


def killed(number: int) -> os.waitid_result:
    return ended(os.CLD_KILLED, number)


def judge_in_job(how: os.waitid_result, verdict: Verdict | None = None) -> Death:
    child = make_child()
    child.verdict = verdict
    enter_job(child)
    return judge(child, how, 1.0)


@pytest.mark.parametrize("number", sorted(SIGNAL_WORDS))
def test_a_worker_killed_by_a_signal_is_charged_to_its_job_with_the_signals_words(number: signal.Signals) -> None:
    death = judge_in_job(killed(number))

    assert death.cause == SIGNAL_WORDS[number]
    assert number.name in death.cause
    assert death.charged
    assert not death.orderly
    assert death.job is not None
    assert death.job.id == "job-1"


@pytest.mark.parametrize(
    ("verdict", "at_work", "charged", "suspects"),
    [
        (None, 1, True, False),
        (None, 0, False, True),
        # Nobody knows which of several holds the memory.
        (Verdict("memory limit", charge=True), 1, False, True),
        (Verdict("hard timeout", charge=True, job="job-1"), 0, True, False),
        (Verdict("hard timeout", charge=True, job="job-2"), 0, False, False),
        (Verdict("drain deadline", charge=False), 0, False, False),
    ],
)
def test_of_several_jobs_only_one_that_was_at_work_is_charged_alone(
    verdict: Verdict | None, at_work: int, charged: bool, suspects: bool
) -> None:
    child = make_child()
    child.verdict = verdict
    enter_job(child)
    child.slot.jobs, child.slot.at_work = 3, at_work

    death = judge(child, killed(signal.SIGKILL), 1.0)

    assert (death.charged, death.suspects) == (charged, suspects)


@pytest.mark.parametrize(("jobs", "at_work", "named"), [(1, 0, True), (3, 1, True), (3, 0, False)])
def test_a_hard_timeout_names_the_job_where_it_is_known(jobs: int, at_work: int, named: bool) -> None:
    child = make_child()
    enter_job(child)
    child.slot.jobs, child.slot.at_work = jobs, at_work

    verdict = overdue_verdict(Overdue.JOB, child, time.monotonic())

    assert bool(verdict.job) is named
    assert verdict.charge


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGRTMIN, 40, signal.SIGRTMAX])
def test_any_other_signal_is_told_too(number: int) -> None:
    death = judge_in_job(killed(number))

    assert "not by rqsup" in death.cause
    assert death.charged


def test_a_core_dump_is_judged_as_its_signal() -> None:
    assert judge_in_job(ended(os.CLD_DUMPED, signal.SIGSEGV)).cause == SIGNAL_WORDS[signal.SIGSEGV]


@pytest.mark.parametrize("status", [0, 1, 70])
def test_an_exit_in_the_middle_of_a_job_is_charged_even_with_status_0(status: int) -> None:
    death = judge_in_job(exited(status))

    assert f"status {status} in the middle of the job" in death.cause
    assert death.charged
    assert not death.orderly


@pytest.mark.parametrize("charge", [True, False])
def test_our_own_verdict_comes_before_what_the_kernel_says(charge: bool) -> None:
    death = judge_in_job(killed(signal.SIGKILL), Verdict("hard timeout", charge=charge))

    assert death.cause == "hard timeout; killed by its master"
    assert death.charged is charge


def test_a_verdict_over_one_job_charges_no_other_that_the_worker_began_meanwhile() -> None:
    verdict = Verdict("hard timeout", charge=True, job="job-0")

    death = judge_in_job(killed(signal.SIGKILL), verdict)

    assert not death.charged


@pytest.mark.parametrize(
    ("oom", "words"),
    [
        (True, "killed by the kernel because memory ran out (OOM); it held up to 61 MB"),
        (False, "killed by SIGKILL, not by rqsup: an operator or another program (the kernel counted no OOM kill)"),
        (None, SIGNAL_WORDS[signal.SIGKILL]),
    ],
)
def test_a_sigkill_that_is_not_ours_is_told_apart_by_the_kernels_count(oom: bool | None, words: str) -> None:
    child = make_child()
    enter_job(child)

    death = judge(child, killed(signal.SIGKILL), 1.0, Evidence(oom=oom, peak_bytes=61_000_000))

    assert death.cause == words
    assert death.charged


def test_the_stack_of_a_dead_worker_stays_with_its_death_and_an_orderly_leave_has_none() -> None:
    died, left = make_child(), make_child()
    enter_job(died)
    left.slot.spent = Spent.SOFT_TIMEOUT

    assert judge(died, killed(signal.SIGSEGV), 1.0, Evidence("where")).stack == "where"
    death = judge(left, exited(0), 1.0, Evidence("where"))
    assert (death.orderly, death.stack) == (True, "")


@pytest.mark.parametrize("occasion", ["stop by the operator", "reload"])
def test_a_drain_deadline_tells_on_what_occasion_the_worker_had_to_leave(occasion: str) -> None:
    verdict = overdue_verdict(Overdue.DRAIN, make_child(), 500, occasion)

    assert verdict == Verdict(f"{occasion}: drain deadline", charge=False)


def test_only_a_ready_worker_without_a_job_and_with_the_order_to_work_owes_a_turn() -> None:
    child = make_child()
    child.patience = Patience(longest_s=40, grace_s=5)

    assert child.view().idle_deadline == pytest.approx(time.monotonic() + 40, abs=5)
    child.stillness.work_waits(time.monotonic())
    assert child.view().idle_deadline == pytest.approx(time.monotonic() + 5, abs=2)
    child.slot.turned += 1
    assert child.view().idle_deadline == pytest.approx(time.monotonic() + 40, abs=5)
    child.slot.order = Order.QUIET
    assert child.view().idle_deadline is None
    child.slot.order = Order.WORK
    enter_job(child)
    assert child.view().idle_deadline is None


def test_a_worker_that_was_told_to_leave_and_left_is_orderly() -> None:
    child = make_child(phase=Phase.DRAINING)
    child.slot.order = Order.LEAVE

    death = judge(child, exited(0), 5.0)

    assert death.orderly
    assert not death.charged
    assert (death.worker, death.number, death.generation, death.seen_at) == ("host.1.1", 1, 1, 5.0)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY])
def test_a_worker_that_left_without_being_told_is_not_orderly(phase: Phase) -> None:
    death = judge(make_child(phase=phase), exited(0), 5.0)

    assert not death.orderly
    assert death.cause == "exited with status 0"


def test_the_failure_of_the_workers_own_code_is_nobodys_jobs_fault() -> None:
    death = judge(make_child(), exited(EXIT_BROKEN), 1.0)

    assert "its log has the traceback" in death.cause
    assert not death.charged


def test_the_hard_timeout_says_how_long_the_job_ran_and_what_was_allowed() -> None:
    child = make_child()
    enter_job(child, started=100, soft_s=10, grace_s=5)

    verdict = overdue_verdict(Overdue.JOB, child, 115.04)

    assert verdict == Verdict("hard timeout: ran 15.0 s, allowed are 10 s and 5 s of grace", charge=True, job="job-1")


@pytest.mark.parametrize("overdue", [Overdue.BOOT, Overdue.DRAIN])
def test_other_deadlines_are_not_the_jobs_fault(overdue: Overdue) -> None:
    child = make_child()
    enter_job(child)

    assert overdue_verdict(overdue, child, 500) == Verdict(str(overdue), charge=False)


def test_a_job_that_ended_in_the_last_moment_is_not_charged() -> None:
    assert overdue_verdict(Overdue.JOB, make_child(), 500) == Verdict("hard timeout", charge=False)


def test_the_plan_sees_job_and_deadlines() -> None:
    child = make_child(generation=3)
    child.deadline = 7.0
    idle = child.view()
    enter_job(child, started=100, soft_s=10, grace_s=5)

    view = child.view()

    assert (idle.busy, idle.hard_deadline) == (False, None)
    assert (view.worker, view.generation, view.phase, view.busy) == ("host.1.1", 3, Phase.READY, True)
    assert (view.deadline, view.hard_deadline) == (7.0, 115.0)


@pytest.mark.parametrize(
    ("phase", "state", "word"),
    [
        (Phase.STARTING, WorkerState.STARTING, "starting"), (Phase.READY, WorkerState.IDLE, "idle"),
        (Phase.READY, WorkerState.QUIET, "quiet"), (Phase.DRAINING, WorkerState.BUSY, "draining"),
        (Phase.DYING, WorkerState.BUSY, "dying"), (Phase.READY, 4711, "idle"),
    ],
)  # fmt: skip
def test_people_see_a_state_in_a_word(phase: Phase, state: Any, word: str) -> None:
    child = make_child(phase=phase)
    child.slot.state = state

    assert child.state() == word


def test_a_worker_in_a_job_is_busy() -> None:
    child = make_child()
    enter_job(child)

    assert child.state() == "busy"


def test_closing_gives_back_descriptors_once() -> None:
    child = make_child()
    child.pidfd = os.pidfd_open(os.getpid())

    child.close()
    child.close()

    assert child.pidfd == -1
    assert child.channel.fileno() == -1
