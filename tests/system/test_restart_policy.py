"""What follows a worker's death: at once, unless it was never ready; degraded, never fatal, healing by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from rqsup import Client
from rqsup.errors import MasterRefused
from rqsup.store.server import LocalServer
from tests.system.conftest import Start
from tests.system.daemon import Daemon, command_line
from tests.waiting import wait_until

#: Long enough for an honest start on a busy machine; the tests below wait for it to pass.
BOOT_TIMEOUT_S = 8
#: An application whose new workers end, hang or live as a file says, before they are ready.
CODE = """
import os, pathlib, time

def born():
    how = pathlib.Path({flag!r}).read_text()
    if how == "die":
        os._exit(9)
    if how == "hang":
        time.sleep(600)

os.register_at_fork(after_in_child=born)
"""


class Sick:
    """A master whose workers can be made to fail at their start."""

    def __init__(self, url: str, namespace: str, folder: Path, **workers: object) -> None:
        self.flag = folder / "flag"
        self.folder = folder
        self.turn("live")
        (folder / "sick.py").write_text(CODE.format(flag=str(self.flag)))
        self.daemon = Daemon(url, namespace, app=["sick"], workers=workers)

    def turn(self, how: str) -> None:
        self.flag.write_text(how)

    def kill_one(self) -> None:
        os.kill(self.daemon.workers()[0]["pid"], signal.SIGKILL)

    def failures(self) -> int:
        return self.daemon.log_text().count("worker did not become ready")


Ail = Callable[..., Sick]


@pytest.fixture
def ail(redis_server: LocalServer, namespace: str, tmp_path: Path) -> Iterator[Ail]:
    made: list[Sick] = []

    def start(**workers: object) -> Sick:
        sick = Sick(redis_server.url, namespace, tmp_path, **workers)
        made.append(sick)
        sick.daemon.start(path=tmp_path)
        return sick

    yield start
    for sick in made:
        sick.daemon.stop()


def test_degraded_shows_everywhere_and_heals_by_itself(ail: Ail) -> None:
    sick = ail(count=2, restart_pause=0.2, restart_cap=0.4)
    daemon = sick.daemon
    sick.turn("die")
    sick.kill_one()

    status = wait_until(lambda: _if_degraded(daemon), what="a degraded pool") or {}
    assert status["degraded"]
    assert status["ready"] == 1, "the others work on"
    # A moment later than its status: the title is written when all else of the turn is done.
    wait_until(lambda: "degraded" in " ".join(psutil.Process(daemon.pid).cmdline()), what="the title to say so")
    assert "degraded: " in _page(daemon, "readyz")
    assert "rqsup_degraded 1.0" in _page(daemon, "metrics")
    assert _status_exit(daemon) == 1

    sick.turn("live")
    wait_until(lambda: daemon.status()["state"] == "running" and daemon.status()["ready"] == 2, 20, "a healed pool")
    assert "degraded" not in _page(daemon, "readyz")
    assert "rqsup_degraded 0.0" in _page(daemon, "metrics")
    assert _status_exit(daemon) == 0


def test_failed_starts_stay_below_the_curve_and_never_end_the_master(ail: Ail) -> None:
    sick = ail(count=4, restart_pause=0.2, restart_cap=5)
    sick.turn("die")
    began = time.monotonic()
    for worker in sick.daemon.workers():
        os.kill(worker["pid"], signal.SIGKILL)

    wait_until(lambda: sick.failures() >= 4 * 4, 30, "four rounds of four failed starts")

    # At the least the first pause lies between two rounds.
    assert time.monotonic() - began >= 3 * 0.2
    assert sick.failures() <= 4 * (1 + (time.monotonic() - began) / 0.2)
    assert sick.daemon.status()["state"] == "degraded"
    sick.turn("live")
    wait_until(lambda: sick.daemon.status()["ready"] == 4, 20, "a healed pool")


def test_a_worker_that_hangs_at_its_start_is_killed_in_time_and_counts_as_a_failed_start(ail: Ail) -> None:
    sick = ail(count=1, boot_timeout=BOOT_TIMEOUT_S, restart_pause=0.2, restart_cap=0.4)
    sick.turn("hang")
    sick.kill_one()

    wait_until(lambda: "it did not become ready in time" in sick.daemon.log_text(), what="the boot deadline")
    wait_until(lambda: sick.failures() >= 1, what="a failed start")
    assert sick.daemon.status()["state"] == "degraded"
    sick.turn("live")

    wait_until(
        lambda: sick.daemon.status()["state"] == "running" and sick.daemon.status()["ready"] == 1,
        what="a healed pool",
    )
    assert len(sick.daemon.workers()) == 1
    assert _workers_of(sick.daemon) == {worker["pid"] for worker in sick.daemon.workers()}
    # The fork that hung half done is nobody's worker, and ended with the zygote that it hung in.
    wait_until(lambda: len(sick.daemon.tree()) == 3, what="master, zygote and worker alone")


def test_a_zygote_that_hangs_is_replaced(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "boot_timeout": BOOT_TIMEOUT_S, "restart_pause": 0.1, "restart_cap": 0.2})
    worker = daemon.workers()[0]["pid"]
    zygote = next(pid for pid in daemon.tree() if pid not in {daemon.pid, worker})

    os.kill(zygote, signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)

    wait_until(lambda: _replaced(daemon, worker, 1), what="a worker of another zygote")
    assert "the zygote does not answer" in daemon.log_text()
    assert client.enqueue("probe.nap", 0).result(30)["attempt"] == 1
    assert not psutil.pid_exists(zygote)
    assert len(daemon.workers()) == 1


def test_a_zygote_that_dies_during_a_failing_reload_is_replaced(ail: Ail) -> None:
    sick = ail(count=1, boot_timeout=BOOT_TIMEOUT_S)
    daemon = sick.daemon
    zygote = next(pid for pid in daemon.tree() if pid not in {daemon.pid, daemon.workers()[0]["pid"]})
    (sick.folder / "sick.py").write_text(
        f"import os, signal\nos.kill({zygote}, signal.SIGKILL)\nraise ValueError('no')\n"
    )

    with pytest.raises(MasterRefused, match="no"):
        daemon.ask("reload")
    (sick.folder / "sick.py").write_text("")
    sick.kill_one()

    wait_until(lambda: daemon.status()["ready"] == 1 and daemon.status()["state"] == "running", what="a worker")


def test_restart_settings_can_be_reloaded(ail: Ail) -> None:
    sick = ail(count=1, restart_pause=60, restart_cap=60)
    sick.daemon.settings["workers"] |= {"restart_pause": 0.1, "restart_cap": 0.1}
    sick.daemon.write_config()
    sick.daemon.ask("reload", wait="drained")
    sick.turn("die")
    sick.kill_one()

    wait_until(lambda: sick.failures() >= 3, what="three failed starts")


@pytest.mark.slow
def test_a_hundred_idle_deaths_are_followed_at_once_and_the_master_keeps_its_calm(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The CPU time to be judged is the master's own, without that of tracing its lines.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    daemon = start(workers={"count": 2})
    master = psutil.Process(daemon.pid)
    spent, began, latencies = sum(master.cpu_times()[:2]), time.monotonic(), []
    for _ in range(100):
        victim = daemon.workers("idle")[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(partial(_replaced, daemon, victim), 10, "two ready workers")
        latencies.append(time.monotonic() - killed)

    status = daemon.status()
    assert status["counters"]["deaths"] == 100
    assert (status["state"], status["degraded"]) == ("running", "")
    # No pause of the restart policy (0.5 s at the least) is among them, however slow the machine.
    assert sorted(latencies)[50] < 0.4
    # A death costs the master some milliseconds, questions of this test included: no loop runs hot beside it.
    assert (sum(master.cpu_times()[:2]) - spent) / 100 < 0.03
    began, spent = time.monotonic(), sum(master.cpu_times()[:2])
    wait_until(lambda: time.monotonic() - began > 1, what="a quiet second")
    assert sum(master.cpu_times()[:2]) - spent < 0.2, "afterwards it sleeps"


def _replaced(daemon: Daemon, victim: int, ready: int = 2) -> bool:
    status = daemon.status()
    return status["ready"] == ready and victim not in {worker["pid"] for worker in status["workers"]}


def _if_degraded(daemon: Daemon) -> dict[str, object] | None:
    status = daemon.status()
    return status if status["state"] == "degraded" else None


def _status_exit(daemon: Daemon) -> int:
    command = [sys.executable, "-m", "rqsup.supervisor", "status", "-c", str(daemon.config)]
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode


def _workers_of(daemon: Daemon) -> set[int]:
    return {process.pid for process in psutil.Process(daemon.pid).children() if "worker" in command_line(process.pid)}


def _page(daemon: Daemon, name: str) -> str:
    try:
        answer = urllib.request.urlopen(f"http://{daemon.status()['metrics_address']}/{name}")
    except urllib.error.HTTPError as error:
        answer = error
    return str(answer.read().decode())
