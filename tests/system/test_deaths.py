"""Death of workers, masters and hosts: no job is lost, each is in one place, and it comes back soon."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rqsup import Client
from rqsup.errors import MasterRefused
from rqsup.job import JobState
from rqsup.request import Request
from rqsup.store.server import LocalServer
from tests.system.conftest import Start, assert_clean_state
from tests.system.daemon import Daemon, all_ended, is_alive, stats
from tests.waiting import wait_until

AssertClean = Callable[[], None]


#: Seconds a job takes: some that are held in numbers, and such as are settled together too.
KILLED_JOBS = {"auto, batch": (0.002, {}), "auto, batch, tiny": (0.0, {}), "auto, each": (0.002, {"settle": "each"}),
    "one by one": (0.002, {"prefetch": 1}), "ten": (0.002, {"prefetch": 10})}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("setting", KILLED_JOBS)
def test_random_kills_of_workers_lose_nothing(
    start: Start, client: Client, assert_clean: AssertClean, setting: str
) -> None:
    seconds, workers = KILLED_JOBS[setting]
    jobs, kills, luck = 5_000 if seconds else 100_000, 15, random.Random(1)
    daemon = start(workers=workers)

    client.enqueue_many(Request("probe.nap", (seconds,)) for _ in range(jobs))
    for killed in range(kills):
        wait_until(lambda: daemon.status()["ready"] == 4, what="all workers ready")
        os.kill(luck.choice(daemon.workers())["pid"], signal.SIGKILL)
        _await_deaths(daemon, killed + 1)

    wait_until(lambda: all_ended(client, jobs), 120, "all jobs to end")
    assert stats(client)["succeeded"] == jobs
    assert stats(client).get("dead", 0) == 0
    assert_clean()


#: Jobs that teach their workers how many to hold: many at once, or the next one while one runs.
SHORT = {"tiny": Request("probe.nothing"), "of 8 ms": Request("probe.nap", (0.008,))}


@pytest.mark.parametrize("long_task", ["probe.until", "probe.until_apart"])
@pytest.mark.parametrize("short", SHORT)
def test_what_waits_behind_a_job_that_turns_out_long_runs_elsewhere_meanwhile(
    start: Start, client: Client, tmp_path: Path, short: str, long_task: str
) -> None:
    start(workers={"count": 2})
    client.enqueue_many(SHORT[short] for _ in range(300))
    long = client.enqueue(long_task, str(tmp_path / "flag"))
    others = client.enqueue_many(SHORT[short] for _ in range(200))

    for job in others:
        job.result(30)

    assert long.refresh().state is JobState.ACTIVE
    (tmp_path / "flag").touch()
    assert long.result(30)["attempt"] == 1
    assert_clean_state(client)


def test_what_ended_before_a_long_job_is_told_during_it_and_never_repeated(
    start: Start, client: Client, assert_clean: AssertClean, tmp_path: Path
) -> None:
    daemon = start(workers={"count": 1})
    tiny = client.enqueue_many(Request("probe.note", (str(tmp_path / "notes"), str(number))) for number in range(500))
    long = client.enqueue("probe.until", str(tmp_path / "flag"))

    for job in tiny:
        job.result(30)
    os.kill(daemon.busy_worker()["pid"], signal.SIGKILL)
    (tmp_path / "flag").touch()

    assert long.result(30)["attempt"] == 2
    assert sorted((tmp_path / "notes").read_text().split(), key=int) == [str(number) for number in range(500)]
    assert_clean()


def test_killed_workers_job_runs_again_elsewhere_and_tells_why(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start()
    job = client.enqueue("probe.until", str(tmp_path / "flag"))
    victim = daemon.busy_worker()

    os.kill(victim["pid"], signal.SIGKILL)
    _await_deaths(daemon, 1)
    (tmp_path / "flag").touch()

    result = job.result(30)
    assert result["attempt"] == 2
    assert result["worker"] != victim["id"]
    recovery = wait_until(lambda: daemon.status()["recoveries"], what="the recovery")[-1]
    assert recovery["jobs"] == [job.id]
    assert "killed by SIGKILL, not by rqsup" in recovery["cause"]


def test_prefetched_jobs_of_a_killed_worker_are_not_charged(
    start: Start, client: Client, assert_clean: AssertClean, tmp_path: Path
) -> None:
    daemon = start(workers={"count": 1, "prefetch": 10})
    first = client.enqueue("probe.until", str(tmp_path / "go"))
    jobs = client.enqueue_many(Request("probe.until", (str(tmp_path / "flag"),)) for _ in range(6))
    # Its end takes the others along, as many as may be prefetched.
    (tmp_path / "go").touch()
    first.result(30)
    wait_until(
        lambda: client.store.client.llen(client.keys.processing(daemon.workers()[0]["id"])) > 1, what="a prefetch"
    )
    running = daemon.busy_worker()["job_id"]

    os.kill(daemon.workers()[0]["pid"], signal.SIGKILL)
    _await_deaths(daemon, 1)
    (tmp_path / "flag").touch()

    attempts = {job.id: job.result(30)["attempt"] for job in jobs}
    assert attempts.pop(running) == 2
    assert set(attempts.values()) == {1}
    assert_clean()


@pytest.mark.slow
def test_killed_masters_leave_no_child_and_their_successors_return_the_jobs_at_once(
    start: Start, client: Client, assert_clean: AssertClean
) -> None:
    # A lease far longer than the test: whatever comes back in time came back without waiting for it.
    luck, jobs = random.Random(2), 0
    daemon = start(workers={"lease_ttl": 600})

    for _ in range(20):
        # More than the workers do while all of a master starts, on a busy machine, too.
        more = max(0, 3_000 - (jobs - stats(client).get("succeeded", 0)))
        client.enqueue_many(Request("probe.nap", (0.01,)) for _ in range(more))
        jobs += more
        _await_progress(client, luck.randrange(30))
        family = daemon.tree()
        daemon.kill()
        _await_end(family)
        daemon.start()

    wait_until(lambda: all_ended(client, jobs), 60, "all jobs to end")
    assert stats(client)["succeeded"] == jobs
    assert_clean()


@pytest.mark.slow
def test_frozen_hosts_jobs_run_elsewhere_and_its_late_settles_are_refused(
    start: Start, client: Client, assert_clean: AssertClean, tmp_path: Path
) -> None:
    frozen = start(workers={"count": 2, "lease_ttl": 2})
    other = start(workers={"count": 2, "lease_ttl": 2})
    other.ask("quiet")
    wait_until(lambda: len(other.workers("quiet")) == 2, what="the other pool to be quiet")
    jobs = [client.enqueue("probe.until", str(tmp_path / "flag")) for _ in range(2)]
    wait_until(lambda: len(frozen.workers("busy")) == 2, what="both workers busy")
    tree = frozen.tree()

    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    (tmp_path / "flag").touch()
    other.ask("resume")
    results = [job.result(30) for job in jobs]
    for pid in tree:
        os.kill(pid, signal.SIGCONT)

    # A lost host costs its jobs nothing: still the first attempt.
    assert [result["attempt"] for result in results] == [1, 1]
    others = {worker["id"] for worker in other.workers()}
    assert {result["worker"] for result in results} <= others
    wait_until(lambda: frozen.status()["counters"]["stale"] == 2, what="two refused settles")
    assert [job.result(1) for job in jobs] == results
    # The thawed workers get new leases and go on.
    other.stop()
    assert client.enqueue("probe.nap", 0).result(30)["worker"] not in others
    assert_clean()


def test_a_zygote_that_dies_is_replaced_and_workers_go_on(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2})
    workers = {worker["pid"] for worker in daemon.workers()}
    zygote = next(pid for pid in daemon.tree() if pid not in workers | {daemon.pid})

    os.kill(zygote, signal.SIGKILL)

    wait_until(lambda: "zygote died" in daemon.log_text(), what="the master to see it")
    assert {worker["pid"] for worker in daemon.workers()} == workers
    os.kill(next(iter(workers)), signal.SIGKILL)
    wait_until(
        lambda: daemon.status()["ready"] == 2 and daemon.status()["counters"]["deaths"] == 1, what="a new worker"
    )
    assert client.enqueue("probe.nap", 0).result(30)


def test_a_lost_zygote_has_one_attempt_at_its_return_however_many_reloads_fail_meanwhile(
    redis_server: LocalServer, namespace: str, tmp_path: Path
) -> None:
    module = tmp_path / "fragile.py"
    module.write_text("")
    daemon = Daemon(
        redis_server.url, namespace, app=["fragile"], workers={"count": 1, "restart_pause": 0.1, "restart_cap": 0.5}
    ).start(path=tmp_path)
    try:
        worker = daemon.workers()[0]["pid"]
        zygote = next(pid for pid in daemon.tree() if pid not in {worker, daemon.pid})
        module.write_text("def broken(:\n")
        os.kill(zygote, signal.SIGKILL)
        wait_until(lambda: daemon.status()["state"] == "degraded", what="a zygote that cannot be started again")

        for _ in range(3):
            with pytest.raises(MasterRefused, match="SyntaxError"):
                daemon.ask("reload")

        assert daemon.log_text().count("zygote died; starting another") == 1
        module.write_text("")
        wait_until(lambda: daemon.status()["state"] == "running", what="a zygote")
    finally:
        daemon.stop()


def test_a_suspended_master_kills_no_worker_for_its_own_lateness(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "kill_grace": 0.5, "job_timeout": 2})
    # Runs past its hard deadline only on the clock: the whole tree stands still meanwhile.
    job = client.enqueue("probe.nap", 1.5)
    daemon.busy_worker()
    tree = daemon.tree()

    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    wait_until(_seconds_later(4), 10, "time to pass")
    for pid in tree:
        os.kill(pid, signal.SIGCONT)

    job.result(30)
    assert daemon.status()["counters"]["deaths"] == 0


def _await_deaths(daemon: Daemon, deaths: int) -> None:
    wait_until(lambda: daemon.status()["counters"]["deaths"] >= deaths, what=f"{deaths} deaths to be seen")


def _await_progress(client: Client, more: int) -> None:
    before = stats(client).get("succeeded", 0)
    wait_until(lambda: stats(client).get("succeeded", 0) >= before + more, what="progress")


def _await_end(family: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, family)), what="the end of all children")


def _seconds_later(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def test_a_zygote_that_dies_while_the_master_is_held_up_is_replaced_too(start: Start) -> None:
    daemon = start(workers={"count": 1})
    worker = daemon.workers()[0]["pid"]
    zygote = next(pid for pid in daemon.tree() if pid not in {worker, daemon.pid})

    # When the master wakes, its tick, which reaps strangers, and the zygote's death are due together.
    os.kill(daemon.pid, signal.SIGSTOP)
    os.kill(zygote, signal.SIGKILL)
    wait_until(_seconds_later(2), 5, "time to pass")
    os.kill(daemon.pid, signal.SIGCONT)

    wait_until(lambda: "zygote died" in daemon.log_text(), what="the master to see it")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: any(one["pid"] != worker for one in daemon.workers("idle")), what="a new worker")
