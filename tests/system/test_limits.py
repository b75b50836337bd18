"""Limits that the master enforces from outside, and what it tells of those it had to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rqsup import Client, Job, JobRecord, JobState
from rqsup.store.server import LocalServer
from tests.system.conftest import Start
from tests.system.daemon import Daemon, is_alive
from tests.waiting import wait_until


def test_a_hog_in_c_code_is_killed_and_its_stack_is_on_the_job(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2, "kill_grace": 0.3, "crash_limit": 1})

    record = wait_dead(client.enqueue("probe.hog"))

    crash = record.crash or {}
    assert crash["message"].startswith("hard timeout: ran")
    assert "allowed are 0.2 s and 0.3 s of grace; killed by its master" in crash["message"]
    assert "probe.py" in crash["stack"]
    assert " in hog" in crash["stack"]
    for command in (("job", "show"), ("dlq", "show")):
        shown = rqsup(daemon, "admin", *command, record.id)
        assert "hard timeout: ran" in shown
        assert " in hog\n" in shown
    assert " in hog" in daemon.log_text()


def test_a_segfault_leaves_its_stack_on_the_job_and_in_the_log(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2, "crash_limit": 1})

    crash = wait_dead(client.enqueue("probe.segfault")).crash or {}

    assert crash["message"] == "segmentation fault (SIGSEGV) in C code"
    assert crash["stack"].startswith("Fatal Python error: Segmentation fault")
    assert " in segfault" in crash["stack"]
    assert "Fatal Python error: Segmentation fault" in daemon.log_text()


def test_a_stopped_worker_in_a_job_is_killed_although_it_tells_no_stack(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "kill_grace": 0.3, "job_timeout": 0.5, "crash_limit": 1})
    job = client.enqueue("probe.nap", 60)

    os.kill(daemon.busy_worker()["pid"], signal.SIGSTOP)

    crash = wait_dead(job).crash or {}
    assert crash["message"].startswith("hard timeout")
    assert crash["stack"].startswith("(no answer")


def test_errors_crashes_and_hand_backs_are_counted_apart(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "crash_limit": 3})
    job = client.enqueue("probe.nap", 60)
    os.kill(daemon.busy_worker()["pid"], signal.SIGKILL)
    wait_until(lambda: record_of(job).crashes == 1 and record_of(job).state == "active", what="the second attempt")

    rqsup(daemon, "stop", "--now")

    record = record_of(job)
    assert (record.errors, record.crashes, record.returns) == (0, 1, 1)
    assert (record.crash or {})["message"].startswith("killed by SIGKILL, not by rqsup")
    assert (record.returned or {})["message"].startswith("stopped by the operator")
    shown = [line.split() for line in rqsup(daemon, "admin", "job", "show", job.id).splitlines()]
    assert all(row in shown for row in (["errors", "0"], ["crashes", "1"], ["returns", "1"]))


def test_stop_and_reload_are_told_as_the_reason_of_a_drain_that_took_too_long(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "drain_timeout": 0.3})
    job = client.enqueue("probe.nap", 60)
    daemon.busy_worker()

    daemon.ask("reload", wait="drained")
    wait_until(lambda: record_of(job).returns == 1, what="the job's return")
    assert (record_of(job).returned or {})["message"] == "reload: drain deadline; its job gave up"

    daemon.busy_worker()
    daemon.stop()
    assert (record_of(job).returned or {})["message"] == "stop by the operator: drain deadline; its job gave up"
    assert (record_of(job).crashes, record_of(job).returns) == (0, 2)


@pytest.mark.parametrize(
    ("task", "ends"), [("probe.loop_for_ever", JobState.DEAD), ("probe.swallow", JobState.SUCCEEDED)]
)
def test_a_worker_is_replaced_after_a_soft_timeout(start: Start, client: Client, task: str, ends: JobState) -> None:
    daemon = start(workers={"count": 1})
    before = daemon.workers()[0]["pid"]

    job = client.enqueue(task)

    wait_until(lambda: record_of(job).state is ends, what="the settled job")
    wait_until(lambda: [one["pid"] for one in daemon.workers("idle")] not in ([before], []), what="a new worker")
    status = daemon.status()
    assert (status["counters"]["deaths"], status["degraded"]) == (0, "")
    assert record_of(job).crashes == 0
    assert "worker leaves to be replaced" in daemon.log_text()


def test_a_stopped_idle_worker_is_replaced_when_a_job_is_handed_to_it(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "idle_grace": 0.5})
    stopped = daemon.workers()[0]["pid"]
    wait_until(lambda: client.store.client.scard(client.keys.waiting) == 1, what="a waiting worker")

    os.kill(stopped, signal.SIGSTOP)
    job = client.enqueue("probe.nap", 0)

    assert job.result(30)["pid"] != stopped
    assert not is_alive(stopped)
    record = record_of(job)
    assert (record.crashes, record.returns) == (0, 1)
    assert (record.returned or {})["message"].startswith("idle, it did not turn its loop for")


def test_a_stopped_idle_worker_is_replaced_when_nothing_waits_too(start: Start) -> None:
    daemon = start(
        workers={"count": 2, "idle_grace": 0.3, "block_timeout": 0.3, "reconnect_cap": 0.1},
        redis={"connect_timeout": 0.2, "socket_timeout": 0.3},
    )
    stopped, other = (worker["pid"] for worker in daemon.workers())

    os.kill(stopped, signal.SIGSTOP)

    wait_until(lambda: not is_alive(stopped), 10, "the end of the stopped worker")
    wait_until(lambda: daemon.status()["ready"] == 2, what="a new worker")
    # It was idle for longer than that all the time, and turned its loop.
    assert other in {worker["pid"] for worker in daemon.workers()}


def test_idle_workers_live_while_redis_is_away(start_private: Start, private_redis: LocalServer) -> None:
    daemon = start_private(
        workers={"count": 2, "idle_grace": 0.3, "block_timeout": 0.3, "reconnect_cap": 0.2},
        redis={"connect_timeout": 0.3, "socket_timeout": 0.3},
    )
    before = {worker["pid"] for worker in daemon.workers()}

    private_redis.kill()
    wait_until(seconds_later(4), 10, "time to pass")

    assert {worker["pid"] for worker in daemon.workers()} == before


def test_a_master_that_stood_still_alone_kills_nobody_who_was_in_time(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2, "kill_grace": 0.2, "job_timeout": 3, "idle_grace": 0.3, "block_timeout": 0.5})
    before = {worker["pid"] for worker in daemon.workers()}
    # In time by its own clock; its hard deadline passes while the master sleeps.
    job, late = client.enqueue("probe.nap", 2.5), client.enqueue("probe.deaf")
    wait_until(lambda: len(daemon.workers("busy")) == 2, what="two busy workers")

    os.kill(daemon.pid, signal.SIGSTOP)
    wait_until(seconds_later(4), 10, "time to pass")
    os.kill(daemon.pid, signal.SIGCONT)

    assert job.result(30)["pid"] in before
    assert record_of(job).crashes == 0
    wait_until(lambda: "the master was held up" in daemon.log_text(), what="the master's own word of it")
    # The one that is really late is ended all the same, a little later.
    wait_until(lambda: record_of(late).crashes >= 1, 20, "the end of the late one")


def test_the_last_try_runs_alone_in_a_fresh_worker(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers={"count": 2, "prefetch": 8, "crash_limit": 3})
    (tmp_path / "others").touch()
    for _ in range(20):
        client.enqueue("probe.pid", str(tmp_path))

    fragile = client.enqueue("probe.die_alone", str(tmp_path))
    others = [client.enqueue("probe.pid", str(tmp_path)) for _ in range(40)]

    record = wait_dead(fragile)
    for job in others:
        job.result(30)
    tries = (tmp_path / "fragile").read_text().split()
    assert len(tries) == record.crashes == 3
    assert "its worker died 3 times" in (record.reason or "")
    assert "segfault" in (record.crash or {})["stack"] or "die_alone" in (record.crash or {})["stack"]
    # Nothing else ran in the process of the last try.
    assert tries[-1] not in (tmp_path / "others").read_text().split()
    assert {record_of(job).crashes for job in others} == {0}
    wait_until(lambda: daemon.status()["ready"] == 2, what="a full pool")


def test_stacks_of_all_workers_or_of_one_are_told_and_the_workers_go_on(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 3})
    job = client.enqueue("probe.nap", 8)
    busy = daemon.busy_worker()

    everybody = rqsup(daemon, "stacks")
    one = json.loads(rqsup(daemon, "stacks", str(busy["pid"]), "--json"))["workers"]

    assert everybody.count("most recent call first") == 3
    assert f"pid {busy['pid']}, busy, probe.nap {job.id}" in everybody
    assert [worker["pid"] for worker in one] == [busy["pid"]]
    assert " in nap" in one[0]["stack"]
    assert job.result(30)["attempt"] == 1
    assert daemon.status()["counters"]["deaths"] == 0


def test_stacks_of_a_stopped_worker_say_so_and_an_unknown_pid_is_refused(start: Start) -> None:
    daemon = start(workers={"count": 1})
    pid = daemon.workers()[0]["pid"]
    os.kill(pid, signal.SIGSTOP)

    assert "no answer: the worker is stopped" in rqsup(daemon, "stacks", str(pid))
    os.kill(pid, signal.SIGCONT)
    refused = run_rqsup(daemon, "stacks", str(daemon.pid))
    assert refused.returncode == 1
    assert f"no worker has pid {daemon.pid}" in refused.stderr


def record_of(job: Job) -> JobRecord:
    return job.refresh().record or pytest.fail("no record")


def wait_dead(job: Job) -> JobRecord:
    wait_until(lambda: record_of(job).state is JobState.DEAD, 30, f"the end of {job.record}")
    return record_of(job)


def run_rqsup(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rqsup.supervisor", *arguments, "-c", str(daemon.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def rqsup(daemon: Daemon, *arguments: str) -> str:
    """What a command prints; it has to succeed."""
    done = run_rqsup(daemon, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seconds_later(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
