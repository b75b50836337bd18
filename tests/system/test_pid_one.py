"""The master as PID 1 of a container: reaps strangers, ends as it should, passes no signal on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rqsup import Client
from rqsup.store.server import LocalServer
from rqsup.supervisor import exits
from tests.system.daemon import Daemon
from tests.waiting import wait_until

#: What starts a program as PID 1 of a new world of processes.
UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
StartInside = Callable[..., "Container"]


def why_not() -> str:
    """Why there can be no such world here; empty when there can."""
    if not shutil.which("unshare"):
        return "needs unshare"
    done = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return f"no process namespace: {done.stderr.strip()}" if done.returncode else ""


class Container:
    """A master that is PID 1 in a process namespace, seen from outside."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    @property
    def master(self) -> psutil.Process:
        """The master; the daemon's own process is `unshare`."""
        return wait_until(lambda: psutil.Process(self.daemon.pid).children(), what="the master")[0]

    def zombies(self) -> list[psutil.Process]:
        """Processes that ended and that nobody has reaped."""
        return [process for process in self.master.children(recursive=True) if _is_zombie(process)]


def _is_zombie(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # reaped meanwhile
        return process.status() == psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def start(redis_server: LocalServer, namespace: str) -> Iterator[StartInside]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    daemons: list[Daemon] = []

    def start(*, wait: bool = True, **sections: Any) -> Container:
        daemon = Daemon(redis_server.url, namespace, app=["probe", "strays"], **sections)
        daemon.wrapper = UNSHARE
        daemons.append(daemon)
        return Container(daemon.start() if wait else daemon.launch())

    yield start
    for daemon in daemons:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()  # and the kernel everything inside
            daemon.process.wait(5)


def test_it_is_pid_1_and_runs_jobs(start: StartInside, client: Client) -> None:
    container = start(workers={"count": 2})

    assert container.daemon.status()["pid"] == 1
    assert client.enqueue("probe.nap", 0).result(30)
    # Below PID 1 there are the zygote and the workers, and nothing else: no shell, no helper.
    titles = sorted(" ".join(process.cmdline()).split(" [")[0] for process in container.master.children(recursive=True))
    assert titles == ["rqsup: worker 1", "rqsup: worker 2", "rqsup: zygote"]


def test_term_drains_and_ends_with_0(start: StartInside, client: Client, tmp_path: Path) -> None:
    container = start(workers={"count": 2})
    job = client.enqueue("probe.until", str(tmp_path / "flag"))
    container.daemon.busy_worker()

    container.master.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in container.daemon.log_text(), what="the stop to begin")
    (tmp_path / "flag").touch()

    assert container.daemon.wait() == exits.OK
    assert job.result(1)["attempt"] == 1


def test_the_exit_status_of_a_late_drain_comes_through(start: StartInside, client: Client) -> None:
    container = start(workers={"count": 1, "drain_timeout": 0.2, "shutdown_grace": 0.2})
    client.enqueue("probe.nap", 60)
    container.daemon.busy_worker()

    container.master.send_signal(signal.SIGTERM)

    assert container.daemon.wait() == exits.DRAIN_TIMED_OUT


def test_that_of_a_broken_configuration_too(start: StartInside) -> None:
    container = start(wait=False, workers={"count": 1, "lease": 3})

    assert container.daemon.wait() == exits.CONFIG


def test_orphans_are_reaped_whatever_their_status(start: StartInside, client: Client) -> None:
    container = start(workers={"count": 1})
    before = container.daemon.status()["counters"]["strangers"]

    for status in (0, 1, 3, 78):
        assert client.enqueue("strays.orphan", status).result(30)

    wait_until(lambda: container.daemon.status()["counters"]["strangers"] >= before + 4, what="four reaped orphans")
    wait_until(lambda: not container.zombies(), what="no zombie")
    assert container.daemon.status()["state"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCONT])
def test_signals_are_not_passed_on_to_what_jobs_left_behind(
    start: StartInside, client: Client, tmp_path: Path, number: signal.Signals
) -> None:
    container = start(workers={"count": 1, "drain_timeout": 30})
    client.enqueue("strays.leave", str(tmp_path), 0).result(30)
    running = client.enqueue("probe.until", str(tmp_path / "flag"))
    container.daemon.busy_worker()

    container.master.send_signal(number)
    if number is signal.SIGTERM:
        wait_until(lambda: "stopping" in container.daemon.log_text(), what="the stop to begin")
    (tmp_path / "flag").touch()

    assert running.result(30)
    if number is signal.SIGTERM:
        assert container.daemon.wait() == exits.OK
    elif number is signal.SIGHUP:
        wait_until(lambda: container.daemon.status()["generation"] == 2, what="the reload")
    assert not (tmp_path / "signals").exists()


def test_killed_from_outside_it_leaves_nothing(start: StartInside, client: Client, tmp_path: Path) -> None:
    container = start(workers={"count": 2})
    client.enqueue("strays.leave", str(tmp_path), 0).result(30)
    inside = container.master.children(recursive=True)

    container.master.kill()

    wait_until(lambda: not any(process.is_running() for process in inside), what="an empty container")
    assert container.daemon.wait() != 0


def test_commands_reach_it_from_inside(start: StartInside) -> None:
    container = start(workers={"count": 1})
    enter = ["nsenter", "-t", str(container.master.pid), "-p", "-m"]
    command = [sys.executable, "-m", "rqsup.supervisor", "quiet", "-c", str(container.daemon.config)]

    # As `docker exec` does it.
    done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False, env=dict(os.environ))

    assert (done.returncode, done.stderr) == (exits.OK, "")
    assert container.daemon.status()["state"] == "quiet"
