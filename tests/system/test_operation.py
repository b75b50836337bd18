"""Stopping, scaling, quieting, ordering and timing of a whole pool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from rqsup import Client
from rqsup.request import Request
from tests.system.conftest import Start
from tests.system.daemon import Daemon, all_ended, command_line, is_alive, stats
from tests.waiting import wait_until


def test_term_lets_running_jobs_finish(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers={"count": 2})
    job = client.enqueue("probe.until", str(tmp_path / "flag"))
    daemon.busy_worker()

    daemon.signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in daemon.log_text(), what="the stop to begin")
    (tmp_path / "flag").touch()

    assert daemon.wait() == 0
    assert job.result(1)["attempt"] == 1


def test_a_drain_that_takes_too_long_hands_the_job_back_with_a_warning(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(workers={"count": 2, "drain_timeout": 0.5})
    job = client.enqueue("probe.nap", 60)
    daemon.busy_worker()

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 75
    assert "drain deadline passed" in daemon.log_text()
    record = job.refresh().record
    assert record
    # Handed back, and not charged: stopping is not the job's fault.
    assert (record.state, record.crashes, record.returns) == ("ready", 0, 1)
    assert_clean()


def test_a_job_can_clean_up_when_its_time_to_finish_is_over(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers={"count": 1, "drain_timeout": 0.3, "shutdown_grace": 20})
    note = tmp_path / "note"
    job = client.enqueue("probe.clean_up", str(note))
    daemon.busy_worker()

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 75
    assert note.read_text() == "cleaned up, stopping=True"
    record = job.refresh().record
    assert record
    assert (record.state, record.errors, record.crashes, record.returns) == ("ready", 0, 0, 1)
    assert "worker died" not in daemon.log_text()


def test_a_job_that_does_not_give_up_is_killed_and_goes_back(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(workers={"count": 1, "drain_timeout": 0.3, "shutdown_grace": 0.3})
    job = client.enqueue("probe.stubborn")
    daemon.busy_worker()

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 75
    record = job.refresh().record
    assert record
    assert (record.state, record.crashes, record.returns) == ("ready", 0, 1)
    assert (record.returned or {})["message"] == "stop by the operator: drain deadline; killed by its master"
    assert_clean()


def test_each_further_term_skips_a_stage(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "drain_timeout": 600, "shutdown_grace": 600})
    client.enqueue("probe.stubborn")
    daemon.busy_worker()

    daemon.signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in daemon.log_text(), what="the drain")
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: daemon.status()["busy"] == 1, what="the job that does not give up")
    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 0


def test_an_old_workers_job_gives_up_when_a_reload_has_waited_long_enough(
    start: Start, client: Client, tmp_path: Path
) -> None:
    daemon = start(workers={"count": 1, "drain_timeout": 0.3, "shutdown_grace": 20})
    note = tmp_path / "note"
    job = client.enqueue("probe.clean_up", str(note))
    old = daemon.busy_worker()

    daemon.ask("reload", wait="drained")

    assert note.exists()
    wait_until(
        lambda: job.refresh().state == "active" and job.record and job.record.worker != old["id"], what="the next run"
    )
    daemon.signal(signal.SIGINT)
    daemon.wait()


def test_term_from_outside_means_nothing_to_a_job(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(workers={"count": 1})
    job = client.enqueue("probe.until", str(tmp_path / "flag"))

    os.kill(daemon.busy_worker()["pid"], signal.SIGTERM)
    (tmp_path / "flag").touch()

    assert job.result(30)["attempt"] == 1


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGQUIT,), (signal.SIGTERM, signal.SIGTERM)])
def test_stopping_now_hands_jobs_back(
    start: Start, client: Client, assert_clean: Callable[[], None], signals: tuple[signal.Signals, ...]
) -> None:
    daemon = start(workers={"count": 2})
    job = client.enqueue("probe.nap", 60)
    daemon.busy_worker()

    for number in signals:
        daemon.signal(number)
        wait_until(lambda: "stopping" in daemon.log_text(), what="the stop to begin")

    assert daemon.wait() == 0
    assert job.refresh().state == "ready"
    assert_clean()


def test_a_stopped_master_leaves_no_process_and_no_registration(start: Start, client: Client) -> None:
    daemon = start()
    tree = daemon.tree()

    daemon.stop()

    assert not [pid for pid in tree if is_alive(pid)]
    assert client.store.client.hgetall(client.keys.workers) == {}
    assert client.store.client.smembers(client.keys.waiting) == set()


def test_jobs_can_ask_whether_to_stop(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1})
    job = client.enqueue("probe.wait_for_stop")
    daemon.busy_worker()

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 0
    assert job.result(1) == "stopping"


def test_workers_ignore_signals_that_are_not_their_masters(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1})
    worker = daemon.workers()[0]["pid"]

    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGTTIN,
        signal.SIGTSTP,
    ):
        os.kill(worker, number)

    assert client.enqueue("probe.nap", 0).result(30)["pid"] == worker


def test_scaling_by_command_and_by_signal(start: Start) -> None:
    daemon = start(workers={"count": 2})

    daemon.ask("scale", workers=5)
    wait_until(lambda: daemon.status()["ready"] == 5, what="five workers")
    daemon.signal(signal.SIGTTIN)
    wait_until(lambda: daemon.status()["ready"] == 6, what="six workers")
    daemon.ask("scale", workers=1)
    wait_until(lambda: len(daemon.workers()) == 1, what="one worker")
    daemon.signal(signal.SIGTTOU)

    # One is the least: a pool of none would look well and do nothing.
    assert daemon.status()["target"] == 1


def test_quiet_stops_fetching_and_resume_goes_on(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(workers={"count": 2})

    daemon.signal(signal.SIGTSTP)
    wait_until(lambda: len(daemon.workers("quiet")) == 2, what="quiet workers")
    jobs = [client.enqueue("probe.nap", 0) for _ in range(5)]
    assert stats(client).get("succeeded", 0) == 0
    assert_clean()
    daemon.signal(signal.SIGCONT)

    assert all(job.result(30) for job in jobs)


@pytest.mark.slow
def test_levels_are_taken_in_order(start: Start, client: Client, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    daemon = start(workers={"count": 1, "prefetch": 1})
    daemon.ask("quiet")
    wait_until(lambda: daemon.workers("quiet"), what="a quiet worker")

    levels = ("low", "normal", "high")
    client.enqueue_many(
        Request("probe.note", (str(journal), f"{levels[number % 3]} {number}"), priority=levels[number % 3])
        for number in range(1000)
    )
    daemon.ask("resume")

    wait_until(lambda: all_ended(client, 1000), 60, "all jobs to end")
    lines = journal.read_text().split("\n")[:-1]
    seen = [(line.split()[0], int(line.split()[1])) for line in lines]
    expected = [(level, number) for level in reversed(levels) for number in range(1000) if levels[number % 3] == level]
    assert seen == expected


def test_due_jobs_start_on_time_and_not_before(start: Start, client: Client) -> None:
    start()
    sent = time.time()

    jobs = [client.enqueue_in(delay, "probe.started_at") for delay in (1.5, 0.5, 1.0)]
    after = [job.result(30) - sent for job in jobs]

    # benchmarks/ shows the 100 ms that are promised; on a busy machine only this much is a fact.
    assert after[1] < after[2] < after[0]
    assert min(ran - delay for ran, delay in zip(after, (1.5, 0.5, 1.0), strict=True)) >= -0.005


def test_ports_tell_health_readiness_and_metrics(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2})
    client.enqueue("probe.nap", 0).result(30)
    address = daemon.status()["metrics_address"]

    pages = {
        page: urllib.request.urlopen(f"http://{address}/{page}").read().decode()
        for page in ("healthz", "readyz", "metrics")
    }

    assert pages["healthz"].startswith("ok")
    assert "2 of 2" in pages["readyz"]
    assert 'rqsup_jobs_total{outcome="succeeded"} 1.0' in pages["metrics"]


def test_titles_tell_the_story(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2})
    client.enqueue("probe.nap", 30)
    worker = daemon.busy_worker()

    wait_until(lambda: "probe.nap" in command_line(worker["pid"]), what="the job in the title")

    assert command_line(worker["pid"]).startswith(
        f"rqsup: worker {worker['number']} [test] gen 1, probe.nap {worker['job_id'][:8]}"
    )
    wait_until(lambda: command_line(daemon.pid).startswith("rqsup: master [test] 2/2 ready, 1 busy"), what="its title")
    daemon.signal(signal.SIGINT)
    daemon.wait()


def test_a_second_master_on_the_same_socket_is_refused(start: Start) -> None:
    daemon = start(workers={"count": 1})

    second = subprocess.run(
        [sys.executable, "-m", "rqsup.supervisor", "run", "-c", str(daemon.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert daemon.status()["ready"] == 1


def test_an_application_that_cannot_be_imported_ends_the_first_start(start: Start) -> None:
    daemon = start(launch_only=True, app=["no_such_application"])

    assert daemon.wait() == 78
    assert "No module named 'no_such_application'" in daemon.log_text()


def test_a_worker_that_never_becomes_ready_slows_the_pool_down_and_it_heals(start: Start, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    daemon = start(workers={"count": 1, "restart_pause": 0.05})
    probe = tmp_path / "sick.py"
    probe.write_text(
        "import os, pathlib\n"
        f"os.register_at_fork(after_in_child=lambda: pathlib.Path({str(flag)!r}).exists() and os.getpid() != {daemon.pid} and os._exit(9))\n"
    )
    sick = Daemon(daemon.url, "sick", app=["sick"], workers={"count": 1, "restart_pause": 0.05})
    try:
        sick.start(path=tmp_path)
        flag.touch()
        os.kill(sick.workers()[0]["pid"], signal.SIGKILL)
        wait_until(lambda: sick.status()["state"] == "degraded", what="a degraded pool")
        flag.unlink()
        wait_until(lambda: sick.status()["state"] == "running" and sick.status()["ready"] == 1, 20, "a healed pool")
    finally:
        sick.stop()


def test_scheduler_role_promotes_and_reaps_without_workers(start: Start, client: Client) -> None:
    worker = start("--role", "worker", workers={"count": 1})
    job = client.enqueue_in(0.2, "probe.nap", 0)
    wait_until(lambda: worker.status()["ready"] == 1, what="the worker")
    assert job.refresh().state == "scheduled"

    scheduler = start("--role", "scheduler", workers={"count": 0 + 1}, pool="scheduler", launch_only=True)

    assert job.result(30)["attempt"] == 1
    assert scheduler.status()["workers"] == []
