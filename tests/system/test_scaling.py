"""The number of workers: by hand, back again, by load; and no new jobs while memory is short."""

from __future__ import annotations

import base64
import mmap
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client
from rqsup.request import Request
from rqsup.store.server import LocalServer
from tests.system.conftest import Start
from tests.system.daemon import Daemon, all_ended, sample_until, stats
from tests.waiting import wait_until


def test_a_scaled_pool_says_so_and_goes_back_when_reset(start: Start) -> None:
    daemon = start(workers={"count": 2})
    assert _numbers(daemon) == (2, 2, "configuration")

    daemon.ask("scale", workers=4)
    wait_until(lambda: daemon.status()["ready"] == 4, what="four workers")
    assert _numbers(daemon) == (4, 2, "operator")
    assert daemon.ask("scale", reset=True) == {"target": 2}

    wait_until(lambda: len(daemon.workers()) == 2, what="two workers")
    assert _numbers(daemon) == (2, 2, "configuration")


def test_a_reload_keeps_the_override_and_a_reset_takes_the_new_number(start: Start) -> None:
    daemon = start(workers={"count": 2})
    daemon.signal(signal.SIGTTIN)
    wait_until(lambda: daemon.status()["ready"] == 3, what="three workers")

    daemon.settings["workers"]["count"] = 1
    daemon.write_config()
    daemon.ask("reload", wait="drained")

    assert _numbers(daemon) == (3, 1, "operator")
    assert len(daemon.workers()) == 3
    daemon.ask("scale", reset=True)
    wait_until(lambda: len(daemon.workers()) == 1, what="one worker")


def test_autoscale_follows_a_burst_up_and_silence_down(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    daemon = start(
        workers={"count": 1, "prefetch": 1},
        autoscale={"enabled": True, "min": 1, "max": 4, "step": 1, "cooldown": 0.3, "up_wait": 0.2, "down_idle": 0.5,
                   "interval": 0.1},
    )  # fmt: skip
    assert _numbers(daemon) == (1, 1, "autoscale")

    client.enqueue_many(Request("probe.nap", (0.1,)) for _ in range(80))
    targets = sample_until(lambda: all_ended(client, 80), lambda: daemon.status()["target"], 30)

    assert targets == sorted(targets), "up only, while jobs wait"
    assert targets[-1] == 4, "never more than the most"
    wait_until(lambda: len(daemon.workers()) == 1, 20, "one worker again")
    assert stats(client)["succeeded"] == 80
    assert not stats(client).get("crashes")
    assert_clean()


def test_scaling_by_hand_comes_before_autoscale_until_reset(start: Start, client: Client) -> None:
    daemon = start(
        workers={"count": 2, "prefetch": 1},
        autoscale={"enabled": True, "min": 1, "max": 4, "cooldown": 0, "up_wait": 0.05, "interval": 0.05},
    )
    daemon.ask("scale", workers=1)
    wait_until(lambda: len(daemon.workers()) == 1, what="one worker")

    client.enqueue_many(Request("probe.nap", (0.1,)) for _ in range(30))
    wait_until(lambda: stats(client).get("succeeded", 0) >= 10, what="a second of waiting")
    assert _numbers(daemon) == (1, 2, "operator")
    daemon.ask("scale", reset=True)

    wait_until(lambda: daemon.status()["target"] == 4, what="autoscale")


def test_autoscale_that_is_off_asks_redis_nothing(start_private: Start, private_client: Client) -> None:
    daemon = start_private(workers={"count": 1}, autoscale={"interval": 0.05})
    daemon.ask("quiet")
    wait_until(lambda: daemon.workers("quiet"), what="a quiet worker")
    # With a job that waits, only gauge.lua asks by LINDEX how long it does.
    private_client.enqueue("probe.nap", 0)

    beats = _command_calls(private_client, "hincrby")
    wait_until(lambda: _command_calls(private_client, "hincrby") > beats, 20, "a beat, some 5 s later")
    assert _command_calls(private_client, "lindex") == 0


@pytest.mark.slow
def test_under_memory_pressure_workers_take_no_new_jobs_until_it_is_over(
    start: Start, client: Client, thrash: Callable[[], Callable[[], None]]
) -> None:
    daemon = start(workers={"count": 2}, pressure={"high": 2.0, "low": 1.9, "interval": 0.2})
    running = client.enqueue("probe.nap", 3)
    daemon.busy_worker()

    end = thrash()

    status = wait_until(lambda: _if(daemon.status(), "shedding"), 30, "shed load") or {}
    assert status["shedding"].startswith("memory pressure: ")
    assert "not taking jobs: memory pressure" in _readyz(daemon)
    wait_until(lambda: len(daemon.workers("quiet")) == 2, what="quiet workers")
    assert running.result(1)["attempt"] == 1
    waiting = client.enqueue("probe.nap", 0)
    assert waiting.refresh().state == "ready"
    end()

    assert waiting.result(60)["attempt"] == 1
    assert daemon.status()["state"] == "running"


def test_the_watch_that_systemd_sets_up_rings_under_real_pressure(
    redis_server: LocalServer, namespace: str, client: Client, thrash: Callable[[], Callable[[], None]]
) -> None:
    daemon = Daemon(redis_server.url, namespace, workers={"count": 2}, pressure={"hold": 1.0, "interval": 0.1})
    # As systemd writes it, but for 20 ms of 2 s instead of 200: this machine has memory in plenty.
    threshold = base64.b64encode(b"some 20000 2000000\0").decode()
    daemon.environ = {"MEMORY_PRESSURE_WATCH": "/proc/pressure/memory", "MEMORY_PRESSURE_WRITE": threshold}
    try:
        daemon.start()
        assert "watch cannot be used" not in daemon.log_text()
        end = thrash()
        status = wait_until(lambda: _if(daemon.status(), "shedding"), what="shed load") or {}
        assert status["shedding"] == "memory pressure: the watch that systemd set up for the unit rang"
        end()
        wait_until(lambda: daemon.status()["state"] == "running", what="the end of it")
        assert client.enqueue("probe.nap", 0).result(30)
    finally:
        daemon.stop()


def test_pressure_and_quiet_are_two_reasons_each_for_itself(start: Start, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    file.write_text(_pressure(50))
    daemon = start(workers={"count": 1}, pressure={"high": 20, "path": str(file), "interval": 0.05})
    wait_until(lambda: daemon.status()["state"] == "shedding", what="shed load")

    daemon.ask("quiet")
    file.write_text(_pressure(0))
    wait_until(lambda: daemon.status()["shedding"] == "", what="the end of the pressure")
    assert daemon.status()["state"] == "quiet"
    job = client.enqueue("probe.nap", 0)
    file.write_text(_pressure(50))
    wait_until(lambda: daemon.status()["shedding"], what="pressure again")
    daemon.ask("resume")

    assert daemon.status()["state"] == "shedding"
    assert job.refresh().state == "ready"
    file.write_text(_pressure(0))
    assert job.result(30)["attempt"] == 1


@pytest.fixture
def thrash(tmp_path: Path) -> Iterator[Callable[[], Callable[[], None]]]:
    """Makes real memory pressure: a process that reads a file larger than it may cache. Returns what ends it."""
    group = Path(f"/sys/fs/cgroup/memory/rqsup-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(16 << 20))
    except OSError:
        pytest.skip("needs root and a memory controller that may be used here")
    if not Path("/proc/pressure/memory").exists():
        pytest.skip("this kernel reports no pressure")
    file = tmp_path / "large"
    children: list[int] = []

    def begin() -> Callable[[], None]:
        children.append(os.fork())
        if not children[0]:
            _read_over_and_over(group, file, 60)
        return end

    def end() -> None:
        while children:
            os.kill(children[-1], signal.SIGKILL)
            os.waitpid(children.pop(), 0)

    yield begin
    end()
    wait_until(lambda: not (group / "cgroup.procs").read_text(), what="an empty group")
    group.rmdir()


def _read_over_and_over(group: Path, path: Path, seconds: float) -> None:
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        with path.open("wb+") as file:
            for _ in range(64):
                file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())
            pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sum(pages[place] for place in range(0, 64 << 20, mmap.PAGESIZE))
    finally:
        os._exit(0)


def _command_calls(client: Client, name: str) -> int:
    redis: Any = client.store.client  # redis-py's annotations mix the replies of both its clients
    return int(redis.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0))


def _numbers(daemon: Daemon) -> tuple[int, int, str]:
    status = daemon.status()
    return status["target"], status["configured"], status["target_by"]


def _if(status: dict[str, Any], key: str) -> dict[str, Any] | None:
    return status if status[key] else None


def _readyz(daemon: Daemon) -> str:
    try:
        answer = urllib.request.urlopen(f"http://{daemon.status()['metrics_address']}/readyz")
    except urllib.error.HTTPError as error:
        answer = error
    return str(answer.read().decode())


def _pressure(percent: float) -> str:
    return f"some avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\n"
