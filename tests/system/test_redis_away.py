"""Redis killed, restarted and frozen under load: nothing accepted is lost, workers resume, nobody spins."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rqsup import Client
from rqsup.envelope import new_id
from rqsup.errors import RqsupError
from rqsup.request import Request
from rqsup.store.records import read_record
from rqsup.store.server import LocalServer
from tests.system.conftest import Start, assert_clean_state
from tests.system.daemon import all_ended, stats
from tests.waiting import wait_until


@pytest.mark.slow
def test_nothing_accepted_is_lost_when_redis_is_killed_under_load(
    start_private: Start, private_redis: LocalServer, private_client: Client
) -> None:
    start_private()
    accepted: set[str] = set()
    stop = threading.Event()
    sender = threading.Thread(target=_send_until, args=(private_client, stop, accepted))
    sender.start()

    for _ in range(3):
        _await_size(accepted, len(accepted) + 300)
        private_redis.kill()
        private_redis.start()
    stop.set()
    sender.join()

    late = _clock(30)
    wait_until(lambda: all_ended(private_client, len(accepted)) or late(), 60, "all jobs to end")
    records = {
        job_id: read_record(job_id, private_client.store.client.hgetall(private_client.keys.job(job_id)))
        for job_id in accepted
    }
    unfinished = {job_id: record for job_id, record in records.items() if record is None or record.state != "succeeded"}
    assert not unfinished
    assert_clean_state(private_client)


@pytest.mark.slow
def test_supervision_goes_on_without_redis_and_workers_resume_after(
    start_private: Start, private_redis: LocalServer, private_client: Client
) -> None:
    daemon = start_private(workers={"count": 2})
    private_redis.kill()
    victim = daemon.workers()[0]["pid"]

    os.kill(victim, signal.SIGKILL)

    wait_until(lambda: daemon.status()["ready"] == 2 and victim not in daemon.tree(), what="a new worker without Redis")
    wait_until(lambda: not daemon.status()["redis_ok"], 20, "the master to notice")
    private_redis.start()
    assert private_client.enqueue("probe.nap", 0).result(5)
    wait_until(lambda: daemon.status()["redis_ok"], 10, "the master to see Redis again")


@pytest.mark.slow
def test_nobody_spins_while_redis_is_away(start_private: Start, private_redis: LocalServer) -> None:
    daemon = start_private()
    private_redis.kill()
    family = [psutil.Process(pid) for pid in daemon.tree()]
    before = sum(sum(process.cpu_times()[:2]) for process in family)

    seconds = 5.0
    wait_until(_clock(seconds), seconds + 5, "time to pass")

    spent = sum(sum(process.cpu_times()[:2]) for process in family) - before
    # A spinning loop takes a core of each worker: 20 CPU-seconds.
    assert spent < seconds * 0.3


@pytest.mark.slow
def test_result_of_a_job_that_ended_while_redis_was_away_is_kept(
    start_private: Start, private_redis: LocalServer, private_client: Client, tmp_path: Path
) -> None:
    daemon = start_private(workers={"count": 1})
    job = private_client.enqueue("probe.until", str(tmp_path / "flag"))
    daemon.busy_worker()

    private_redis.kill()
    (tmp_path / "flag").touch()
    wait_until(lambda: not daemon.workers("busy"), what="the job's end")
    private_redis.start()

    assert job.result(30)["attempt"] == 1
    assert stats(private_client)["recovered" if "recovered" in stats(private_client) else "succeeded"] == 1
    assert job.refresh().record
    assert job.record
    assert job.record.token == 1


@pytest.mark.slow
def test_a_frozen_redis_is_survived(start_private: Start, private_redis: LocalServer, private_client: Client) -> None:
    daemon = start_private(redis={"socket_timeout": 1.0}, workers={"count": 2, "block_timeout": 1.0})
    os.kill(private_redis.pid, signal.SIGSTOP)
    wait_until(lambda: not daemon.status()["redis_ok"], 20, "the master to notice")
    os.kill(private_redis.pid, signal.SIGCONT)

    assert private_client.enqueue("probe.nap", 0).result(30)
    assert_clean_state(private_client)


@pytest.mark.slow
def test_the_master_waits_for_redis_at_its_start(
    start_private: Start, private_redis: LocalServer, private_client: Client
) -> None:
    private_redis.stop()
    daemon = start_private(launch_only=True)
    wait_until(lambda: "waiting for Redis" in daemon.log_text(), what="the first try")

    private_redis.start()

    wait_until(lambda: daemon.is_ready(4), 20, "ready workers")
    assert private_client.enqueue("probe.nap", 0).result(30)


def test_without_redis_the_master_gives_up_with_its_own_exit_status(
    start_private: Start, private_redis: LocalServer
) -> None:
    private_redis.stop()

    daemon = start_private(launch_only=True, redis={"connect_tries": 1})

    assert daemon.wait() == 69
    assert "Redis" in daemon.log_text()


def _send_until(client: Client, stop: threading.Event, accepted: set[str]) -> None:
    while not stop.is_set():
        job_id = new_id()
        while True:
            try:
                client.send(Request("probe.nap", (0.001,), job_id=job_id))
                break
            except RqsupError:
                # Its fate is unknown; the same id makes the repeat safe.
                stop.wait(0.02)
        accepted.add(job_id)


def _await_size(accepted: set[str], size: int) -> None:
    wait_until(lambda: len(accepted) >= size, 30, f"{size} accepted jobs")


def _clock(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def test_idle_workers_notice_that_redis_forgot_them(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2, "lease_ttl": 1.5})
    wait_until(lambda: client.store.client.scard(client.keys.waiting) == 2, what="two waiting workers")

    # As after FLUSHALL, a restored backup, or another master's false suspicion.
    client.store.client.delete(client.keys.waiting, client.keys.workers)

    job = client.enqueue("probe.nap", 0)
    assert job.result(30)["attempt"] == 1
    assert daemon.status()["counters"]["deaths"] == 0
