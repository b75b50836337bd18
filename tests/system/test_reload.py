"""Reload: new code takes over without a gap; broken code or configuration changes nothing."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rqsup import Client
from rqsup.errors import MasterRefused
from rqsup.request import Request
from rqsup.store.server import LocalServer
from tests.system.daemon import Daemon, all_ended, command_line, sample_until, stats
from tests.waiting import wait_until

CODE = """
import time
from rqsup import current_job, task

@task(name="version.tell")
def tell(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return {number}

@task(name="version.generation")
def generation() -> int:
    return current_job().generation
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
    assert client.enqueue("version.tell").result(30) == 1

    (tmp_path / "version.py").write_text(CODE.format(number=22))
    answer = deployed.ask("reload", wait="drained")

    assert answer == {"generation": 2}
    assert client.enqueue("version.tell").result(30) == 22
    assert {worker["generation"] for worker in deployed.workers()} == {2}


def test_each_job_tells_the_generation_that_ran_it(deployed: Daemon, client: Client) -> None:
    old = client.enqueue("version.generation")
    assert old.result(30) == 1

    deployed.ask("reload", wait="drained")
    new = client.enqueue("version.generation")
    assert new.result(30) == 2

    assert [client.record(job.id).generation for job in (old, new)] == [1, 2]
    with urllib.request.urlopen(f"http://{deployed.status()['metrics_address']}/metrics") as page:
        assert "rqsup_generation 2.0" in page.read().decode()


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
    assert client.enqueue("version.tell").result(30) == 1
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
    assert client.enqueue("version.tell").result(30) == 1


def test_configuration_that_never_ends_is_the_throw_away_process_problem(deployed: Daemon, client: Client) -> None:
    deployed.settings["workers"]["boot_timeout"] = 5
    deployed.write_config()
    deployed.ask("reload", wait="drained")
    before = deployed.workers()
    deployed.config.unlink()
    os.mkfifo(deployed.config)

    with pytest.raises(MasterRefused, match=r"could not be read within 5 s \(workers.boot_timeout\)"):
        deployed.ask("reload")

    assert {worker["pid"] for worker in deployed.workers()} == {worker["pid"] for worker in before}
    assert client.enqueue("version.tell").result(30) == 1
    assert not [pid for pid in deployed.tree() if "rqsup.supervisor.validation" in command_line(pid)]


def test_configuration_that_kills_its_reader_changes_nothing(deployed: Daemon, client: Client, tmp_path: Path) -> None:
    # As after a deploy that broke a library: found first, because the master was started in this folder.
    (tmp_path / "yaml.py").write_text("import os\nos.kill(os.getpid(), 11)\n")

    with pytest.raises(MasterRefused, match=r"was killed by signal 11"):
        deployed.ask("reload")

    assert deployed.status()["generation"] == 1
    assert client.enqueue("version.tell").result(30) == 1


def test_signal_reloads(deployed: Daemon) -> None:
    deployed.signal(signal.SIGHUP)

    wait_until(lambda: {worker["generation"] for worker in deployed.workers()} == {2}, 20, "the second generation")


def test_a_pool_whose_zygote_died_over_broken_code_is_healed_by_a_reload(
    deployed: Daemon, client: Client, tmp_path: Path
) -> None:
    workers = {worker["pid"] for worker in deployed.workers()}
    zygote = next(pid for pid in deployed.tree() if pid not in {deployed.pid, *workers})
    (tmp_path / "version.py").write_text("def broken(:\n")
    os.kill(zygote, signal.SIGKILL)
    wait_until(lambda: deployed.status()["state"] == "degraded", what="a zygote that cannot be started again")
    with pytest.raises(MasterRefused, match="SyntaxError"):
        deployed.ask("reload")

    (tmp_path / "version.py").write_text(CODE.format(number=22))
    deployed.ask("reload", wait="drained")

    assert client.enqueue("version.tell").result(10) == 22
    assert deployed.status()["state"] == "running"


def test_changed_number_of_workers_takes_effect(deployed: Daemon) -> None:
    deployed.settings["workers"]["count"] = 5
    deployed.write_config()

    deployed.ask("reload", wait="drained")

    assert deployed.status()["ready"] == 5


def test_reload_in_batches_never_has_fewer_ready_than_wanted(deployed: Daemon) -> None:
    deployed.settings["workers"] |= {"count": 6, "reload_share": 0.5}
    deployed.write_config()
    deployed.ask("reload", wait="drained")
    taken = {worker["number"] for worker in deployed.workers()}

    reload = threading.Thread(target=deployed.ask, args=("reload",), kwargs={"wait": "drained"})
    reload.start()
    seen = sample_until(lambda: not reload.is_alive(), deployed.status, 60)
    reload.join()

    assert min(picture["ready"] for picture in seen) >= 6
    young = [sum(w["generation"] == 3 and w["state"] == "starting" for w in picture["workers"]) for picture in seen]
    assert max(young) <= 3
    assert {worker["generation"] for worker in deployed.workers()} == {3}
    # The first three were asked for at once, before any of the old six had freed its number.
    assert set(sorted(set(range(1, 10)) - taken)[:3]) <= {worker["number"] for worker in deployed.workers()}


CHECKED = """
from rqsup import task

def check() -> None:
    {check}

@task(name="version.tell")
def tell(seconds: float = 0.0) -> int:
    {body}
"""


def test_a_canary_whose_check_fails_fails_the_reload(deployed: Daemon, client: Client, tmp_path: Path) -> None:
    before = {worker["pid"] for worker in deployed.workers()}
    deployed.settings["canary"] = {"check": "version:check"}
    deployed.write_config()

    (tmp_path / "version.py").write_text(CHECKED.format(check="raise OSError('no database')", body="return 2"))
    with pytest.raises(MasterRefused, match="its check failed: OSError: no database"):
        deployed.ask("reload")

    wait_until(lambda: {worker["pid"] for worker in deployed.workers()} == before, what="the old workers alone")
    assert client.enqueue("version.tell").result(30) == 1


def test_a_canary_that_passes_its_check_is_followed_by_the_others(
    deployed: Daemon, client: Client, tmp_path: Path
) -> None:
    deployed.settings["canary"] = {"check": "version:check"}
    deployed.write_config()

    (tmp_path / "version.py").write_text(CHECKED.format(check="pass", body="return 2"))
    deployed.ask("reload", wait="drained")

    assert client.enqueue("version.tell").result(30) == 2
    assert {worker["generation"] for worker in deployed.workers()} == {2}


@pytest.mark.parametrize(
    ("body", "reason"),
    [("raise ValueError('new and wrong')", "jobs ended in an error"), ("import os; os._exit(1)", "the canary died")],
)
def test_a_canary_whose_jobs_fail_fails_the_reload(
    deployed: Daemon, client: Client, tmp_path: Path, body: str, reason: str
) -> None:
    deployed.settings["canary"] = {"jobs": 5, "timeout": 30}
    deployed.write_config()

    (tmp_path / "version.py").write_text(CHECKED.format(check="pass", body=body))
    with fed(client) as ids, pytest.raises(MasterRefused, match=reason):
        deployed.ask("reload")
    # Another one like it would have spoiled the same job again, up to its limit.
    assert stats(client).get("crashed", 0) <= 1

    wait_until(lambda: {worker["generation"] for worker in deployed.workers()} == {1}, what="the old workers alone")
    # An old worker that met a job on its last try leaves for a fresh one: so it may be a moment before all are ready.
    wait_until(lambda: deployed.status()["ready"] == 3, what="three ready workers")
    # What the canary spoiled is retried by the old code.
    wait_until(lambda: stats(client).get("succeeded", 0) == len(ids), 60, "all jobs to succeed")


def test_a_canary_with_good_jobs_is_followed_by_the_others(deployed: Daemon, client: Client, tmp_path: Path) -> None:
    deployed.settings["canary"] = {"jobs": 3, "timeout": 30}
    deployed.write_config()

    with fed(client):
        deployed.ask("reload", wait="drained")

    assert {worker["generation"] for worker in deployed.workers()} == {2}


def test_a_canary_for_which_no_job_comes_is_not_waited_for_longer(deployed: Daemon) -> None:
    deployed.settings["canary"] = {"jobs": 3, "timeout": 0.3}
    deployed.write_config()

    assert deployed.ask("reload") == {"generation": 2}


def test_a_job_of_newer_code_waits_for_it_and_is_not_charged(deployed: Daemon, client: Client, tmp_path: Path) -> None:
    newer = client.enqueue("version.newer")
    wait_until(lambda: newer.refresh().state == "scheduled", what="the old code to give it back")

    (tmp_path / "version.py").write_text(CODE.format(number=1).replace("version.tell", "version.newer"))
    deployed.ask("reload", wait="drained")

    assert newer.result(30) == 1
    assert newer.refresh().record
    assert newer.record
    assert (newer.record.errors, newer.record.crashes) == (0, 0)


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


@contextmanager
def fed(client: Client) -> Iterator[list[str]]:
    """Inside the block jobs wait at any time, however long it lasts; the ids of all of them."""
    ids: list[str] = []
    over = threading.Event()

    def feed() -> None:
        while not over.is_set():
            if client.store.client.llen(client.keys.ready("default:normal")) < 20:
                ids.extend(job.id for job in client.enqueue_many(Request("version.tell", (0.05,)) for _ in range(20)))
            over.wait(0.02)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield ids
    finally:
        over.set()
        feeder.join()


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
