"""A worker that the kernel kills because memory ran out, in a cgroup with little of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client, JobState
from rqsup.supervisor import exits
from rqsup.workers.oom import find_counter
from tests.system.conftest import Start
from tests.system.daemon import Daemon
from tests.waiting import wait_until

#: What the master, its zygote and its workers may hold together.
LIMIT_BYTES = 400 << 20


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with a memory limit below that of this process; skips where there is none to be had."""
    counter = find_counter(os.getpid())
    if counter is None:
        pytest.skip("this process's cgroup has no memory controller")
    folder = counter.parent / f"rqsup-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as fault:
        pytest.skip(f"no cgroup can be made here: {fault}")
    try:
        try:
            name = "memory.max" if counter.name == "memory.events" else "memory.limit_in_bytes"
            (folder / name).write_text(str(LIMIT_BYTES))
        except OSError as fault:
            pytest.skip(f"the memory of a cgroup cannot be limited here: {fault}")
        yield folder
    finally:
        # Its processes are reaped, and it is empty a moment later.
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), what="an empty cgroup")
        folder.rmdir()


def start_in(cgroup: Path, start: Start, **sections: Any) -> Daemon:
    daemon = start(launch_only=True, **sections, workers={"count": 2, "crash_limit": 1})
    # Python has not even begun: the zygote and the workers will be born in it.
    (cgroup / "cgroup.procs").write_text(str(daemon.pid))
    wait_until(lambda: daemon.is_ready(2), 30, "two ready workers")
    return daemon


def test_an_oom_kill_is_told_as_such_on_the_job_and_in_the_log(cgroup: Path, start: Start, client: Client) -> None:
    daemon = start_in(cgroup, start)
    before = {worker["pid"] for worker in daemon.workers()}

    job = client.enqueue("probe.eat", 2 * (LIMIT_BYTES >> 20))

    wait_until(lambda: job.refresh().state is JobState.DEAD, 30, "the job's end")
    crash = (job.record and job.record.crash) or {}
    assert crash["message"].startswith("killed by the kernel because memory ran out (OOM); it held up to ")
    assert "memory ran out (OOM)" in daemon.log_text()
    # The other worker and the master live.
    assert len(before & {worker["pid"] for worker in daemon.workers()}) == 1
    assert client.enqueue("probe.nap", 0).result(30)


def test_an_operators_kill_is_not_taken_for_an_oom_kill(cgroup: Path, start: Start, client: Client) -> None:
    daemon = start_in(cgroup, start)
    job = client.enqueue("probe.nap", 60)

    os.kill(daemon.busy_worker()["pid"], signal.SIGKILL)

    wait_until(lambda: job.refresh().state is JobState.DEAD, 30, "the job's end")
    crash = (job.record and job.record.crash) or {}
    assert crash["message"].startswith("killed by SIGKILL, not by rqsup: an operator or another program")


def test_on_demand_an_oom_kill_ends_the_master_which_drains_first(cgroup: Path, start: Start, client: Client) -> None:
    daemon = start(launch_only=True, workers={"count": 2, "crash_limit": 1, "oom": "fail"})
    (cgroup / "cgroup.procs").write_text(str(daemon.pid))
    wait_until(lambda: daemon.is_ready(2), 30, "two ready workers")
    running = client.enqueue("probe.wait_for_stop")
    daemon.busy_worker()

    job = client.enqueue("probe.eat", 2 * (LIMIT_BYTES >> 20))

    assert daemon.wait() == exits.OUT_OF_MEMORY
    assert job.refresh().state is JobState.DEAD
    assert running.result(1)  # it was told to stop, and ended in order
    assert "workers.oom is fail: draining, to end with status 71" in daemon.log_text()
