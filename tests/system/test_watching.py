"""Events, top and the killing of a job, with whole masters and the real command line."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client
from rqsup.errors import MasterRefused
from tests.system.conftest import Start
from tests.system.daemon import Daemon, stats
from tests.waiting import wait_until


def rqsup(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rqsup.supervisor", *arguments, "-c", str(daemon.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def events(daemon: Daemon) -> list[dict[str, Any]]:
    """All events, with their fields beside them."""
    lines = rqsup(daemon, "events", "--json", "-n", "1000").stdout.splitlines()
    return [event["fields"] | {"name": event["event"]} for event in map(json.loads, lines)]


def test_a_killed_job_is_a_dead_letter_with_the_operators_name_and_no_crash(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(workers={"count": 2})
    job = client.enqueue("probe.nap", 600)
    worker = daemon.busy_worker()

    done = rqsup(daemon, "kill", "--job", job.id, "--json")

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["job_id"], answer["pid"], answer["became"]) == (job.id, worker["pid"], "dead")
    assert job.refresh().state == "dead"
    assert client.record(job.id).reason == f"killed by the operator (user {getpass.getuser()})"
    assert (stats(client).get("crashed", 0), daemon.status()["counters"]["crashed"]) == (0, 0)
    wait_until(lambda: daemon.status()["ready"] == 2, what="the worker's successor")
    assert_clean()


def test_with_requeue_it_runs_again_and_is_not_charged(
    start: Start, client: Client, assert_clean: Callable[[], None], tmp_path: Path
) -> None:
    daemon = start(workers={"count": 1, "crash_limit": 1})
    job = client.enqueue("probe.until", str(tmp_path / "flag"))
    daemon.busy_worker()

    answer = daemon.ask("kill", job=job.id, requeue=True)
    (tmp_path / "flag").touch()

    assert answer["became"] == "ready"
    assert job.result(30)["attempt"] == 1
    assert_clean()


def test_a_job_that_does_not_run_is_refused_with_what_to_do(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1})
    waiting = client.enqueue_in(600, "probe.nap", 1)

    for job_id in (waiting.id, "no-such-job"):
        done = rqsup(daemon, "kill", "--job", job_id)
        assert done.returncode == 1
        assert "no worker of this pool runs job" in done.stderr
    with pytest.raises(MasterRefused, match="name the job"):
        daemon.ask("kill")


def test_events_tell_the_story_whatever_the_log_level(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1}, log={"level": "error"})
    job = client.enqueue("probe.nap", 600)
    worker = daemon.busy_worker()

    daemon.ask("scale", workers=2)
    wait_until(lambda: daemon.status()["ready"] == 2, what="two workers")
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: daemon.status()["recoveries"], what="the recovery")
    daemon.ask("reload", wait="ready")

    seen = events(daemon)
    names = [event["name"] for event in seen]
    wanted = ["worker ready", "ready", "scaled", "worker ready", "worker died", "jobs returned", "reload"]
    assert [name for name in wanted if name in names] == wanted
    died = next(event for event in seen if event["name"] == "worker died")
    assert (died["pid"], died["job_id"]) == (worker["pid"], job.id)
    assert "SIGKILL" in died["cause"]
    assert "worker ready" not in daemon.log_text()
    daemon.signal(signal.SIGINT)


def test_a_follower_sees_what_comes_and_ends_with_the_master(start: Start) -> None:
    daemon = start(workers={"count": 1})
    command = [sys.executable, "-m", "rqsup.supervisor", "events", "-f", "--json", "-c", str(daemon.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        # The past comes first, so from here on the follower is there.
        assert json.loads(follower.stdout.readline())["level"] in {"info", "warning"}
        daemon.ask("quiet")
        read = follower.stdout.readline
        names = iter(lambda: json.loads(read())["event"], "quiet")
        assert "ready" in list(names)

        daemon.stop()

        assert "stopping" in follower.stdout.read()
        assert follower.wait(10) == 0


def test_top_once_shows_pools_queues_and_workers_as_text_and_json(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2, "queues": ["mail", "default"]})
    client.enqueue("probe.nap", 600)
    busy = daemon.busy_worker()
    daemon.ask("quiet")
    client.enqueue_in(600, "probe.nap", 0)

    text = rqsup(daemon, "top", "--once", "--interval", "0.2")
    picture = json.loads(rqsup(daemon, "top", "--json", "--interval", "0.2").stdout)

    assert text.returncode == 0, text.stderr
    assert all(part in text.stdout for part in ("test", "quiet", "2/2", "mail", "probe.nap", busy["job_id"]))
    [pool] = picture["pools"]
    assert (pool["pool"], pool["scheduled"], set(pool["ready"])) == ("test", 1, {"mail", "default"})
    daemon.signal(signal.SIGINT)
    daemon.wait()
    assert rqsup(daemon, "top", "--once", "--interval", "0.2").returncode == 1


def test_top_is_live_on_a_terminal_of_80_by_24_and_shows_a_job(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2})
    job = client.enqueue("probe.nap", 600)
    daemon.busy_worker()
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(slave)
    command = [sys.executable, "-m", "rqsup.supervisor", "top", "--interval", "0.2", "-c", str(daemon.config)]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    screen = bytearray()

    def sees(text: str) -> bool:
        with contextlib.suppress(BlockingIOError):
            screen.extend(os.read(master, 65536))
        return text.encode() in screen

    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as top:
        wait_until(lambda: sees("probe.nap"), 20, "the workers")
        os.write(master, b"a\r")
        wait_until(lambda: sees(job.id) and sees("envelope"), 20, "the job's record")
        os.write(master, b"\x1b")
        screen.clear()
        wait_until(lambda: sees("fails/s"), 20, "the list again")
        os.write(master, b"q")
        wait_until(lambda: sees("no such text") or top.poll() is not None, 20, "its end")
        assert top.returncode == 0

    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)
    daemon.signal(signal.SIGINT)
    daemon.wait()
