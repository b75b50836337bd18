"""Many coroutines in one worker: the promises of one job after the other hold for each of them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client, Job, JobRecord, JobState
from rqsup.request import Request
from rqsup.store.server import LocalServer
from tests.system.conftest import Start, assert_clean_state
from tests.system.daemon import Daemon, all_ended, command_line, stats
from tests.waiting import wait_until

AssertClean = Callable[[], None]


def crew(count: int = 1, places: int = 20, **workers: Any) -> dict[str, Any]:
    """Settings of workers that run jobs at once."""
    return {"count": count, "concurrency": places, **workers}


def record_of(job: Job) -> JobRecord:
    return job.refresh().record or pytest.fail("no record")


def tokens(client: Client, jobs: list[Job]) -> set[bytes | None]:
    """How often each of them was claimed."""
    return {client.store.client.hget(client.keys.job(job.id), "token") for job in jobs}


def wait_dead(*jobs: Job) -> None:
    wait_until(lambda: all(job.refresh().state is JobState.DEAD for job in jobs), 60, "their end")


def wait_charged(job: Job, crashes: int = 1) -> None:
    wait_until(lambda: record_of(job).crashes >= crashes, what=f"crash {crashes} of {job.id}")


def wait_running(daemon: Daemon, jobs: int) -> None:
    wait_until(lambda: sum(worker["jobs"] for worker in daemon.workers()) == jobs, what=f"{jobs} jobs under way")


@pytest.mark.parametrize("places", [10, 50])
def test_as_many_jobs_as_there_are_places_run_at_once_and_never_more(
    start: Start, client: Client, assert_clean: AssertClean, tmp_path: Path, places: int
) -> None:
    daemon = start(workers=crew(places=places))
    gate = tmp_path / "gate"

    jobs = client.enqueue_many(Request("probe.together", (0.01, str(gate))) for _ in range(1000))
    wait_running(daemon, places)
    gate.touch()

    results = [job.result(60) for job in jobs]
    assert len({pid for pid, _, _ in results}) == 1
    assert max(most for _, most, _ in results) == places
    assert [told for _, _, told in results] == [job.id for job in jobs]
    assert stats(client)["succeeded"] == 1000
    assert_clean()


def test_a_killed_worker_loses_none_of_its_jobs(
    start: Start, client: Client, assert_clean: AssertClean, tmp_path: Path
) -> None:
    # Each death is a crash of all that ran: the limit is out of reach, else the last tries would run alone.
    daemon = start(workers=crew(count=2, crash_limit=10))

    client.enqueue_many(Request("probe.together", (0.01, str(tmp_path / "gate"))) for _ in range(300))
    for _ in range(3):
        wait_running(daemon, 40)
        os.kill(daemon.busy_worker()["pid"], signal.SIGKILL)
        wait_until(lambda: sum(worker["jobs"] for worker in daemon.workers()) < 40, what="the death")
    (tmp_path / "gate").touch()

    wait_until(lambda: all_ended(client, 300), 60, "all jobs to end")
    assert (stats(client)["succeeded"], stats(client).get("dead", 0)) == (300, 0)
    assert_clean()


def test_a_job_over_its_time_is_cancelled_and_its_neighbours_notice_nothing(
    start: Start, client: Client, tmp_path: Path
) -> None:
    daemon = start(workers=crew())
    beside = [client.enqueue("probe.until_async", str(tmp_path / "gate")) for _ in range(5)]
    pid = daemon.busy_worker()["pid"]

    late = client.enqueue("probe.over_time_async")
    wait_dead(late)
    (tmp_path / "gate").touch()

    assert {job.result(30) for job in beside} == {pid}
    assert (record_of(late).error or {})["type"] == "JobTimeout"
    assert [record_of(job).crashes for job in beside] == [0] * 5


def test_a_job_that_blocks_the_loop_is_killed_and_charged_alone(
    start: Start, client: Client, tmp_path: Path, assert_clean: AssertClean
) -> None:
    daemon = start(workers=crew(kill_grace=0.5, crash_limit=2))
    beside = [client.enqueue("probe.until_async", str(tmp_path / "later")) for _ in range(5)]
    blocker = client.enqueue("probe.block_async", str(tmp_path / "now"))
    wait_running(daemon, 6)

    (tmp_path / "now").touch()
    wait_charged(blocker)
    # Its last try waits until no other job runs.
    (tmp_path / "later").touch()

    for job in beside:
        job.result(30)
    wait_dead(blocker)
    crash = str(record_of(blocker).crash)
    assert "hard timeout: ran" in crash
    assert "in block_async" in crash
    assert [record_of(job).crashes for job in beside] == [0] * 5
    assert_clean()


def test_a_job_that_ignores_its_cancellation_is_killed_and_charged_alone(
    start: Start, client: Client, tmp_path: Path
) -> None:
    daemon = start(workers=crew(kill_grace=0.5, crash_limit=2))
    beside = [client.enqueue("probe.until_async", str(tmp_path / "gate")) for _ in range(5)]
    wait_running(daemon, 5)

    deaf = client.enqueue("probe.stubborn_async")
    wait_charged(deaf)
    (tmp_path / "gate").touch()

    for job in beside:
        job.result(30)
    wait_dead(deaf)
    assert "hard timeout: ran" in str(record_of(deaf).crash)
    assert [record_of(job).crashes for job in beside] == [0] * 5


def test_a_job_that_kills_its_worker_in_a_step_is_charged_alone(
    start: Start, client: Client, tmp_path: Path, assert_clean: AssertClean
) -> None:
    daemon = start(workers=crew(crash_limit=3))
    beside = [client.enqueue("probe.until_async", str(tmp_path / "later")) for _ in range(5)]
    poison = client.enqueue("probe.die_in_step", str(tmp_path / "now"))
    wait_running(daemon, 6)

    (tmp_path / "now").touch()
    wait_charged(poison, 2)
    (tmp_path / "later").touch()

    for job in beside:
        job.result(30)
    wait_dead(poison)
    assert record_of(poison).crashes == 3
    assert [record_of(job).crashes for job in beside] == [0] * 5
    assert_clean()


def test_a_poison_that_nobody_saw_at_work_is_found_and_the_innocent_succeed(
    start: Start, client: Client, assert_clean: AssertClean
) -> None:
    start(workers=crew(crash_limit=2))

    innocent = [client.enqueue("probe.together", 0.5) for _ in range(5)]
    poison = client.enqueue("probe.die_between_steps")
    innocent += [client.enqueue("probe.together", 0.5) for _ in range(5)]

    wait_dead(poison)
    for job in innocent:
        job.result(60)
    assert "crash limit" in str(record_of(poison).reason)
    assert max(record_of(job).crashes for job in innocent) < 2
    assert_clean()


def test_redis_killed_and_started_again_repeats_no_running_job(
    start_private: Start, private_redis: LocalServer, private_client: Client, tmp_path: Path
) -> None:
    daemon = start_private(workers=crew())
    jobs = [private_client.enqueue("probe.until_async", str(tmp_path / "gate")) for _ in range(10)]
    wait_running(daemon, 10)

    private_redis.kill()
    wait_until(lambda: "Redis is away" in daemon.log_text(), what="the worker to notice")
    # They end while Redis is away: their results wait for it.
    (tmp_path / "gate").touch()
    wait_until(lambda: not daemon.workers("busy"), what="the end of the jobs")
    private_redis.start()

    for job in jobs:
        job.result(30)
    assert stats(private_client)["succeeded"] == 10
    assert tokens(private_client, jobs) == {b"1"}
    assert private_client.enqueue("probe.together", 0).result(30)
    assert_clean_state(private_client)


def test_jobs_that_run_while_redis_comes_back_are_not_begun_twice(
    start_private: Start, private_redis: LocalServer, private_client: Client, tmp_path: Path
) -> None:
    daemon = start_private(workers=crew())
    jobs = [private_client.enqueue("probe.until_async", str(tmp_path / "gate")) for _ in range(10)]
    wait_running(daemon, 10)

    private_redis.kill()
    wait_until(lambda: "Redis is away" in daemon.log_text(), what="the worker to notice")
    private_redis.start()
    assert private_client.enqueue("probe.together", 0).result(30)
    (tmp_path / "gate").touch()

    for job in jobs:
        job.result(30)
    assert tokens(private_client, jobs) == {b"1"}
    assert_clean_state(private_client)


def test_a_drain_finishes_what_runs_and_leaves_what_waits(
    start: Start, client: Client, tmp_path: Path, assert_clean: AssertClean
) -> None:
    daemon = start(workers=crew(places=5))
    jobs = [client.enqueue("probe.until_async", str(tmp_path / "gate")) for _ in range(8)]
    wait_running(daemon, 5)

    daemon.signal(signal.SIGTERM)
    wait_until(lambda: daemon.workers("draining"), what="the drain")
    (tmp_path / "gate").touch()

    assert daemon.wait() == 0
    assert Counter(job.refresh().state for job in jobs) == {JobState.READY: 3, JobState.SUCCEEDED: 5}
    assert_clean()


def test_a_stop_in_its_second_stage_raises_jobshutdown_in_each_job(
    start: Start, client: Client, tmp_path: Path, assert_clean: AssertClean
) -> None:
    daemon = start(workers=crew(drain_timeout=0.3, shutdown_grace=20))
    jobs = [client.enqueue("probe.clean_up_async", str(tmp_path)) for _ in range(5)]
    wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 5, what="all jobs begun")

    daemon.stop()

    assert len(list(tmp_path.glob("*.cleaned"))) == 5
    for job in jobs:
        record = record_of(job)
        assert (record.state, record.crashes, record.errors, record.returns) == (JobState.READY, 0, 0, 1)
    assert_clean()


def test_a_quiet_worker_goes_on_with_its_jobs_and_takes_no_more(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers=crew())
    running = client.enqueue("probe.until_async", str(tmp_path / "gate"))
    wait_until(lambda: client.store.client.scard(client.keys.waiting), what="its waiting for more")

    daemon.ask("quiet")
    wait_until(lambda: not client.store.client.scard(client.keys.waiting), what="the end of its waiting")
    late = client.enqueue("probe.together", 0)
    (tmp_path / "gate").touch()
    running.result(30)
    wait_until(lambda: daemon.workers("quiet"), what="a quiet worker")

    assert late.refresh().state is JobState.READY
    daemon.ask("resume")
    assert late.result(30)


def test_plain_and_isolated_jobs_run_alone_between_the_coroutines(
    start: Start, client: Client, assert_clean: AssertClean
) -> None:
    start(app=["probe", "hostile"], workers=crew())

    together = client.enqueue_many(Request("probe.together", (0.02,)) for _ in range(60))
    alone = client.enqueue_many(Request("probe.alone", ()) for _ in range(20))
    apart = [client.enqueue("probe.print_apart", "hello") for _ in range(3)]
    limited = client.enqueue("probe.rlimits")
    together += client.enqueue_many(Request("probe.together", (0.02,)) for _ in range(60))

    assert {job.result(60) for job in alone} == {0}
    assert max(most for _, most, _ in [job.result(60) for job in together]) > 1
    assert [job.result(60) for job in apart] == [job.id for job in apart]
    assert limited.result(60)
    assert_clean()


@pytest.mark.parametrize("apart", [False, True], ids=["itself", "its task"])
def test_what_would_end_an_event_loop_ends_one_job(start: Start, client: Client, tmp_path: Path, apart: bool) -> None:
    daemon = start(workers=crew())
    beside = client.enqueue("probe.until_async", str(tmp_path / "gate"))
    pid = daemon.busy_worker()["pid"]

    # The cancellation of a task is nobody's end but the task's.
    kinds = ["SystemExit", "KeyboardInterrupt"] + ([] if apart else ["CancelledError"])
    fallen = [client.enqueue("probe.raise_async", kind, apart) for kind in kinds]
    wait_dead(*fallen)
    (tmp_path / "gate").touch()

    assert [(record_of(job).error or {})["type"] for job in fallen] == kinds
    assert beside.result(30) == pid


def test_tasks_that_a_job_leaves_behind_are_cancelled(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers=crew())

    client.enqueue("probe.leave_task_behind", str(tmp_path / "cancelled")).result(30)

    wait_until((tmp_path / "cancelled").exists, what="the task's end")
    wait_until(lambda: "job left tasks behind" in daemon.log_text(), what="a line in the log")


def test_status_and_title_tell_how_many_run_and_any_of_them_can_be_killed(
    start: Start, client: Client, tmp_path: Path, assert_clean: AssertClean
) -> None:
    daemon = start(workers=crew())
    jobs = [client.enqueue("probe.until_async", str(tmp_path / "gate")) for _ in range(3)]
    wait_running(daemon, 3)
    pid = daemon.busy_worker()["pid"]
    wait_until(lambda: command_line(pid).endswith(", 3 jobs"), what="the title")

    answer = daemon.ask("kill", job=jobs[1].id)
    (tmp_path / "gate").touch()

    assert answer["became"] == "dead"
    assert record_of(jobs[1]).crashes == 0
    for job in (jobs[0], jobs[2]):
        job.result(30)
        assert (record_of(job).crashes, record_of(job).returns) == (0, 1)
    assert_clean()


def test_what_jobs_print_at_once_is_told_apart(start: Start, client: Client) -> None:
    daemon = start(workers=crew())

    jobs = [client.enqueue("probe.say_async", f"word-{number}") for number in range(5)]

    for number, job in enumerate(jobs):
        job.result(30)
        for turn in range(3):
            wait_until(
                lambda: any(
                    f"word-{number} {turn}" in line and job.id in line  # noqa: B023 - called at once
                    for line in daemon.log_text().splitlines()
                ),
                what=f"what {job.id} printed",
            )


def test_short_jobs_that_run_alone_are_none_left_behind(start: Start, client: Client) -> None:
    start(workers=crew())

    # While they run, the next ones are claimed: also such as run beside others.
    jobs = client.enqueue_many(
        Request("probe.nap", (0.006,)) if number % 10 else Request("probe.nap_async", (0.001,)) for number in range(200)
    )

    for job in jobs:
        job.result(30)
    assert_clean_state(client)
