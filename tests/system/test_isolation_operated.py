"""What an operator can rely on with isolated jobs as with others: stops, timeouts, limits, stacks, causes of death."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from rqsup import Client, JobState, Request
from tests.system.conftest import Start
from tests.system.daemon import Daemon, is_alive
from tests.system.test_isolation import APART, wait_ended
from tests.system.test_limits import record_of, rqsup
from tests.system.test_oom import LIMIT_BYTES, cgroup, start_in
from tests.waiting import wait_until

__all__ = ["cgroup"]


def job_process(daemon: Daemon) -> int:
    """The process of the isolated job under way, as `rqsup stacks` tells it."""
    daemon.busy_worker()
    return int(
        wait_until(
            lambda: json.loads(rqsup(daemon, "stacks", "--json"))["workers"][0]["job_pid"], what="the job's process"
        )
    )


@APART
def test_a_stop_in_its_second_stage_raises_jobshutdown_in_the_jobs_process(
    start: Start, client: Client, assert_clean: Callable[[], None], level: str
) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "drain_timeout": 0.3, "shutdown_grace": 20})
    job = client.enqueue(f"{level}.clean_up", "mine")
    job_process(daemon)

    daemon.stop()

    assert "mine cleaned up, stopping=True" in daemon.log_text()
    record = record_of(job)
    assert (record.state, record.crashes, record.errors, record.returns) == (JobState.READY, 0, 0, 1)
    assert_clean()


@APART
def test_stacks_show_where_the_jobs_process_is_and_it_goes_on(start: Start, client: Client, level: str) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "drain_timeout": 0, "shutdown_grace": 0.1})
    client.enqueue(f"{level}.sleep_in_named_function")
    pid = job_process(daemon)
    wait_until(lambda: " in sleep_in_named_function" in rqsup(daemon, "stacks"), what="the job's own stack")

    assert f" in process {pid}\n" in rqsup(daemon, "stacks", str(pid))
    assert psutil.Process(pid).ppid() == daemon.busy_worker()["pid"]


@APART
def test_a_hard_timeout_leaves_the_stack_of_the_jobs_process_with_the_job(
    start: Start, client: Client, level: str
) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "kill_grace": 0.3, "crash_limit": 1})
    [worker] = daemon.workers()

    crash = wait_ended(client.enqueue(f"{level}.hog_interpreter")).crash or {}

    assert crash["message"].startswith("hard timeout: ran 0.6 s, allowed are 0.3 s and 0.3 s of grace")
    assert " in hog_interpreter" in crash["stack"]
    assert daemon.workers()[0]["pid"] == worker["pid"]


@APART
def test_a_segfault_leaves_its_stack_with_the_job_and_none_for_the_worker(
    start: Start, client: Client, level: str
) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "crash_limit": 1})

    crash = wait_ended(client.enqueue(f"{level}.segfault")).crash or {}

    assert crash["stack"].startswith("Fatal Python error: Segmentation fault")
    assert " in segfault" in crash["stack"]
    # The worker's own later death is another's story.
    nap = client.enqueue("inline.sleep_in_named_function")
    os.kill(daemon.busy_worker()["pid"], signal.SIGKILL)
    assert "stack" not in (wait_ended(nap).crash or {})


@APART
def test_the_last_try_of_an_isolated_job_runs_in_a_fresh_worker(start: Start, client: Client, level: str) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "crash_limit": 2})
    [worker] = daemon.workers()

    record = wait_ended(client.enqueue(f"{level}.segfault"))

    assert (record.state, record.crashes) == (JobState.DEAD, 2)
    assert record.reason == "crash limit: its process died 2 times while running it"
    assert (record.crash or {})["worker"] != worker["id"]
    assert daemon.log_text().count("reason=last_try") >= 1


@APART
def test_limits_of_a_task_hold_in_the_jobs_process_alone(start: Start, client: Client, level: str) -> None:
    start(app=["hostile"], workers={"count": 1})

    data, nofile, fsize, cpu = client.enqueue(f"{level}.few").result(30)
    late = wait_ended(client.enqueue(f"{level}.short"))

    assert (data, nofile, fsize) == (1 << 30, 64, 4096)
    assert 5 <= cpu <= 6
    assert (late.error or {})["type"] == "CpuLimit"
    assert client.enqueue("inline.limited").result(30)[1:3] != [64, 4096]


def test_the_processor_time_of_a_sandbox_is_bounded_and_told_as_the_cause(start: Start, client: Client) -> None:
    start(app=["hostile"], workers={"count": 1, "crash_limit": 1}, sandbox={"cpu": 1})

    crash = wait_ended(client.enqueue("sandbox.spin")).crash or {}

    assert crash["message"] == "CPU time limit (SIGXCPU)"


@APART
def test_a_hard_limit_of_memory_holds_for_the_jobs_process(start: Start, client: Client, level: str) -> None:
    daemon = start(
        app=["hostile"],
        workers={"count": 1, "crash_limit": 1, "max_memory_hard": 200 << 20, "memory_sample": 0.1},
    )

    record = wait_ended(client.enqueue(f"{level}.eat", 400))

    assert (record.crash or {})["message"].startswith("memory limit: used ")
    wait_until(lambda: daemon.is_ready(1), what="a fresh worker")


@APART
def test_an_oom_kill_of_the_jobs_process_is_told_as_such(
    cgroup: Path, start: Start, client: Client, level: str
) -> None:
    daemon = start_in(cgroup, start, app=["hostile"])
    workers = {worker["pid"] for worker in daemon.workers()}

    crash = wait_ended(client.enqueue(f"{level}.eat", 2 * (LIMIT_BYTES >> 20))).crash or {}

    assert crash["message"].startswith("killed by the kernel because memory ran out (OOM); it held up to ")
    assert {worker["pid"] for worker in daemon.workers()} == workers


@APART
def test_an_operators_kill_of_the_jobs_process_is_charged_and_told_as_such(
    start: Start, client: Client, level: str
) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "crash_limit": 1})
    [worker] = daemon.workers()
    job = client.enqueue(f"{level}.sleep_in_named_function")

    os.kill(job_process(daemon), signal.SIGKILL)

    assert (wait_ended(job).crash or {})["message"].startswith("killed by SIGKILL, not by rqsup: an operator")
    assert is_alive(worker["pid"])


def test_short_jobs_of_their_own_processes_are_each_claimed_once(start: Start, client: Client) -> None:
    start(app=["hostile"], workers={"count": 2})

    jobs = client.enqueue_many(Request("fork.nothing") for _ in range(60))

    for job in jobs:
        job.result(30)
    # One that was held and given back would have a second token.
    assert {client.store.client.hget(client.keys.job(job.id), "token") for job in jobs} == {b"1"}
