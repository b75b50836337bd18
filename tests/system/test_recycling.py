"""Workers that have worked enough are replaced, and nobody misses them; jobs that take too much are stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from rqsup import Client, Job
from rqsup.request import Request
from tests.system.conftest import Start
from tests.system.daemon import Daemon, all_ended, sample_until, stats
from tests.waiting import wait_until

MIB = 1 << 20


def test_after_enough_jobs_a_worker_is_replaced_and_the_pool_stays_whole(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(workers={"count": 3, "max_jobs": 20, "memory_sample": 0.1, "prefetch": 1})
    first = {worker["pid"] for worker in daemon.workers()}

    sent = 0
    seen: list[dict[str, Any]] = [daemon.status()]
    # On a busy machine a replacement may take longer than many a job.
    while seen[-1]["counters"]["recycled"] < 5:
        client.enqueue_many(Request("probe.nap", (0.02,)) for _ in range(200))
        sent += 200
        seen += sample_until(partial(all_ended, client, sent), daemon.status, 60)

    assert min(status["ready"] for status in seen) >= 3
    assert max(len(status["workers"]) for status in seen) <= 3 + 2, "one more ready, one leaving"
    wait_until(lambda: not first & {worker["pid"] for worker in daemon.workers()}, what="only fresh workers")
    counters = daemon.status()["counters"]
    assert (counters["deaths"], counters["crashed"], stats(client)["succeeded"]) == (0, 0, sent)
    assert "(workers.max_jobs)" in daemon.log_text()
    assert_clean()


def test_equal_workers_do_not_reach_their_age_together(start: Start) -> None:
    daemon = start(workers={"count": 4, "max_age": 2.0, "recycle_jitter": 0.5, "memory_sample": 0.05})

    seen = sample_until(lambda: daemon.status()["counters"]["recycled"] >= 8, daemon.status, 30)

    assert daemon.status()["counters"]["recycled"] >= 8
    assert min(status["ready"] for status in seen) >= 4
    assert max(sum(worker["state"] == "draining" for worker in status["workers"]) for status in seen) <= 1
    assert seen[-1]["counters"]["deaths"] == 0


def test_a_worker_that_leaked_finishes_its_job_and_is_replaced(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers={"count": 1, "max_memory": 100 * MIB, "memory_sample": 0.1, "drain_timeout": 0.2})
    job = client.enqueue("probe.leak_until", 150, str(tmp_path / "flag"))
    leaky = daemon.busy_worker()["pid"]

    wait_until(lambda: {"draining"} & {worker["state"] for worker in daemon.workers()}, what="a leaving worker")
    assert daemon.status()["ready"] == 1, "its replacement came first"

    (tmp_path / "flag").touch()
    # Its drain takes as long as the job may: nobody waits for it.
    assert job.result(30)["pid"] == leaky
    wait_until(lambda: [worker["pid"] for worker in daemon.workers()] != [leaky], what="a fresh worker")
    assert client.enqueue("probe.nap", 0).result(30)["pid"] != leaky
    assert daemon.status()["counters"]["deaths"] == 0
    assert "of memory of its own (workers.max_memory)" in daemon.log_text()


def test_a_stop_does_not_wait_longer_for_a_worn_worker_than_for_others(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "max_memory": 100 * MIB, "memory_sample": 0.1, "drain_timeout": 0.5})
    job = client.enqueue("probe.leak", 150, 60.0)
    wait_until(lambda: "draining" in {worker["state"] for worker in daemon.workers()}, what="a leaving worker")

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 75
    record = job.refresh().record
    assert record is not None
    assert (record.state, record.crashes) == ("ready", 0)


def test_a_job_beyond_the_hard_limit_is_killed_in_its_middle_and_charged(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(workers={"count": 2, "max_memory_hard": 100 * MIB, "memory_sample": 0.1, "crash_limit": 2})

    job, innocent = client.enqueue("probe.leak", 150, 60.0), client.enqueue("probe.nap", 1.0)

    record = _dead(job)
    assert record.reason.startswith("crash limit")
    assert (record.crashes, record.errors) == (2, 0)
    assert "memory limit: used 1" in record.crash["message"]
    assert "allowed are 100.0 MiB (workers.max_memory_hard); killed by its master" in record.crash["message"]
    assert innocent.result(30)["attempt"] == 1
    assert daemon.status()["counters"]["memory_kills"] == 2
    assert_clean()


def test_memory_that_is_shared_with_the_application_does_not_count(start: Start, client: Client) -> None:
    daemon = start(
        app=["large"], workers={"count": 2, "max_memory": 60 * MIB, "max_memory_hard": 60 * MIB, "memory_sample": 0.05}
    )
    worker = daemon.workers()[0]["pid"]
    assert psutil.Process(worker).memory_info().rss > 100 * MIB

    for _ in range(20):
        assert client.enqueue("large.touch").result(30) == 100 * MIB

    counters = daemon.status()["counters"]
    assert (counters["recycled"], counters["memory_kills"]) == (0, 0)


def test_recycling_stops_while_no_replacement_can_start(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers={"count": 2, "max_jobs": 1, "memory_sample": 0.1, "boot_timeout": 60})
    before = {worker["pid"] for worker in daemon.workers()}
    zygote = next(pid for pid in daemon.tree() if pid != daemon.pid and pid not in before)
    psutil.Process(zygote).suspend()

    for _ in range(10):
        client.enqueue("probe.nap", 0).result(30)
    wait_until(lambda: daemon.workers("starting"), what="a replacement that does not come")

    wait_until(lambda: {worker["pid"] for worker in daemon.workers("idle")} == before, what="the old workers, idle")
    psutil.Process(zygote).resume()
    wait_until(lambda: not before & {worker["pid"] for worker in daemon.workers()}, what="fresh workers")


@pytest.mark.slow
def test_recycling_goes_on_through_reloads_under_load(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(workers={"count": 3, "max_jobs": 30, "memory_sample": 0.05, "prefetch": 1})
    client.enqueue_many(Request("probe.nap", (0.01,)) for _ in range(1500))
    seen: list[dict[str, Any]] = []
    stop = threading.Event()
    watcher = threading.Thread(target=lambda: _watch(daemon, seen, stop))
    watcher.start()

    for _ in range(4):
        daemon.ask("reload", wait="drained")
    wait_until(lambda: all_ended(client, 1500), 90, "all jobs to end")
    stop.set()
    watcher.join()

    assert min(status["ready"] for status in seen) >= 3
    assert seen[-1]["counters"]["recycled"] >= 3
    assert (seen[-1]["counters"]["deaths"], stats(client)["succeeded"]) == (0, 1500)
    assert_clean()


def test_limited_jobs_get_errors_and_leave_no_limit_behind(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers={"count": 1, "prefetch": 1})
    worker = psutil.Process(daemon.workers()[0]["pid"])
    before = client.enqueue("probe.rlimits").result(30)

    jobs = {
        "MemoryError": client.enqueue("probe.limited_data"),
        "CpuLimit": client.enqueue("probe.limited_cpu"),
        "Too many open files": client.enqueue("probe.limited_nofile"),
        "File too large": client.enqueue("probe.limited_fsize", str(tmp_path / "file")),
        "used more than 1 s of processor time": client.enqueue("probe.limited_cpu_async"),
    }

    for words, job in jobs.items():
        # A bound of processor time, not of the clock: a busy machine makes it late, not wrong.
        wait_until(lambda job=job: job.refresh().state == "dead" or _used_s(worker) > 30, 120, words)  # type: ignore[misc]
        record = _dead(job)
        assert words in str(record.error), words
        assert record.crashes == 0
    assert client.enqueue("probe.rlimits").result(30) == before


def test_a_limit_that_was_swallowed_comes_again_although_the_job_only_waits(start: Start, client: Client) -> None:
    start(workers={"count": 1})

    job = client.enqueue("probe.limited_cpu_swallowed")

    assert "used more than 1 s of processor time" in str(_dead(job).error)


def _watch(daemon: Daemon, seen: list[dict[str, Any]], stop: threading.Event) -> None:
    while not stop.is_set():
        seen.append(daemon.status())


def _used_s(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def _dead(job: Job) -> Any:
    wait_until(lambda: job.refresh().state == "dead", 30, f"the end of {job.id}")
    return job.refresh().record
