"""Reload: new code takes over without a gap; broken code or configuration changes nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rqsup import Client
from rqsup.client import Request
from rqsup.errors import MasterRefused
from rqsup.store.server import LocalServer
from tests.system.daemon import Daemon, all_ended, sample_until, stats
from tests.waiting import wait_until

CODE = """
import time
from rqsup import task

@task(name="version.tell")
def tell(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return {number}
"""


@pytest.fixture
def deployed(redis_server: LocalServer, namespace: str, tmp_path: Path) -> Iterator[Daemon]:
    """A master whose application can be changed: `version.py` in tmp_path."""
    (tmp_path / "version.py").write_text(CODE.format(number=1))
    daemon = Daemon(redis_server.url, namespace, app=["version"], workers={"count": 3, "drain_timeout": 10})
    daemon.start(path=tmp_path)
    yield daemon
    daemon.stop()


def test_new_code_takes_over(deployed: Daemon, client: Client, tmp_path: Path) -> None:
    assert client.enqueue("version.tell").result(10) == 1

    (tmp_path / "version.py").write_text(CODE.format(number=22))
    answer = deployed.ask("reload", wait="drained")

    assert answer == {"generation": 2}
    assert client.enqueue("version.tell").result(10) == 22
    assert {worker["generation"] for worker in deployed.workers()} == {2}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_module_at_all\n", "ModuleNotFoundError"),
        ("raise SystemExit(3)\n", "SystemExit"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True, name='ddtrace').start()\n",
            "thread",
        ),
    ],
)
def test_broken_code_changes_nothing_and_says_why(
    deployed: Daemon, client: Client, tmp_path: Path, code: str, reason: str
) -> None:
    before = {worker["pid"] for worker in deployed.workers()}

    (tmp_path / "version.py").write_text(code)
    with pytest.raises(MasterRefused, match=reason):
        deployed.ask("reload")

    wait_until(lambda: {worker["pid"] for worker in deployed.workers()} == before, what="the old workers alone")
    assert client.enqueue("version.tell").result(10) == 1
    assert deployed.status()["last_reload"].startswith("failed")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("workers: [", "no YAML"),
        ("wrokers: {}\n", "wrokers: unknown key"),
        ("app: [version]\nnamespace: other\n", "namespace"),
    ],
)
def test_broken_configuration_changes_nothing_and_says_why(
    deployed: Daemon, client: Client, text: str, reason: str
) -> None:
    deployed.config.write_text(text)

    with pytest.raises(MasterRefused, match=reason):
        deployed.ask("reload")

    assert deployed.status()["generation"] == 1
    assert client.enqueue("version.tell").result(10) == 1


def test_signal_reloads(deployed: Daemon) -> None:
    deployed.signal(signal.SIGHUP)

    wait_until(lambda: {worker["generation"] for worker in deployed.workers()} == {2}, 20, "the second generation")


def test_changed_number_of_workers_takes_effect(deployed: Daemon) -> None:
    deployed.settings["workers"]["count"] = 5
    deployed.write_config()

    deployed.ask("reload", wait="drained")

    assert deployed.status()["ready"] == 5


@pytest.mark.slow
def test_reloads_under_load_never_fall_below_the_target(
    deployed: Daemon, client: Client, tmp_path: Path, assert_clean: Callable[[], None]
) -> None:
    jobs = 3_000
    client.enqueue_many(Request("version.tell", (0.01,)) for _ in range(jobs))
    deploys = [CODE.format(number=1), "def broken(:\n", "import no_such_module_at_all\n", None]
    over = threading.Event()

    def deploy() -> None:
        for turn in range(20):
            _deploy(deployed, tmp_path, deploys[turn % len(deploys)])
        over.set()

    deployer = threading.Thread(target=deploy)
    deployer.start()
    ready = sample_until(over.is_set, lambda: deployed.status()["ready"], 120)
    deployer.join(60)

    assert over.is_set()
    assert len(ready) > 100
    assert min(ready) >= 3
    wait_until(lambda: all_ended(client, jobs), 60, "all jobs to end")
    assert stats(client)["succeeded"] == jobs
    assert_clean()


def _deploy(daemon: Daemon, folder: Path, code: str | None) -> None:
    """Deploy code and reload; None = a broken configuration for one reload."""
    if code is None:
        daemon.config.write_text("workers: [")
    else:
        (folder / "version.py").write_text(code)
    try:
        daemon.ask("reload", wait="drained")
    except MasterRefused:
        pass
    finally:
        daemon.write_config()
        (folder / "version.py").write_text(CODE.format(number=1))
