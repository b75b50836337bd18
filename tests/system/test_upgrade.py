"""Upgrade of rqsup in place: the same process, the same workers, other code; what cannot take over changes nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from rqsup import Client
from rqsup.errors import MasterRefused, MasterUnreachable, RqsupError
from rqsup.job import JobState
from rqsup.request import Request
from rqsup.store.server import LocalServer
from rqsup.supervisor.ports.dial import request
from tests.system.daemon import Daemon, all_ended, command_line, is_alive, stats
from tests.system.releases import Releases
from tests.waiting import wait_until

#: Seconds for one upgrade on a loaded machine.
UPGRADE_S = 60


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path)


@pytest.fixture
def pool(
    redis_server: LocalServer, namespace: str, releases: Releases, request: pytest.FixtureRequest
) -> Iterator[Daemon]:
    """A master with three workers, which runs the current release."""
    daemon = Daemon(redis_server.url, namespace, workers={"count": 3, "drain_timeout": 120})
    daemon.environ = releases.environ
    daemon.start()
    yield daemon
    daemon.stop()
    if request.session.testsfailed:
        print(f"--- log of {daemon.folder} ---\n{daemon.log_text()[-8000:]}")  # noqa: T201 - pytest shows it with the failure


@pytest.fixture
def checkout(redis_server: LocalServer, namespace: str, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A master with three workers, which runs what is tested here, and is upgraded to the same."""
    daemon = Daemon(redis_server.url, namespace, workers={"count": 3, "drain_timeout": 120})
    daemon.start()
    yield daemon
    daemon.stop()
    if request.session.testsfailed:
        print(f"--- log of {daemon.folder} ---\n{daemon.log_text()[-8000:]}")  # noqa: T201 - pytest shows it with the failure


def upgrade(daemon: Daemon, **arguments: Any) -> dict[str, Any]:
    return daemon.ask("upgrade", timeout_s=UPGRADE_S, **arguments)


class Watcher:
    """Asks for the status and the metrics over and over, each time on a new connection, and keeps what it saw."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self.seen: list[dict[str, Any]] = []
        self.pages: list[str] = []
        self.refused: list[str] = []
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                self.seen.append(request(str(self._daemon.socket), "status", timeout_s=30))
                address = self.seen[-1]["metrics_address"]
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
                    self.pages.append(page.read().decode())
            except (RqsupError, OSError) as fault:
                self.refused.append(repr(fault))

    def counts(self, name: str) -> list[int]:
        return [picture["counters"].get(name, 0) for picture in self.seen]

    def metric(self, name: str) -> list[float]:
        return [float(line.split()[-1]) for page in self.pages for line in page.splitlines() if line.startswith(name)]


def test_the_new_program_takes_over_and_jobs_run_on(pool: Daemon, client: Client, releases: Releases) -> None:
    job = client.enqueue("probe.nap", 4)
    worker = pool.busy_worker()
    master = pool.pid
    releases.install("0.2.0")
    steps: list[str] = []

    answer = request(str(pool.socket), "upgrade", timeout_s=UPGRADE_S, on_progress=steps.append)

    assert (answer["rqsup"], answer["from"], answer["generation"]) == ("0.2.0", "0.1.0", 2)
    assert steps[0].startswith("rqsup 0.2.0 has checked itself")
    assert steps[1].startswith("rqsup 0.2.0 took over from 0.1.0")
    assert steps[-1] == "generation 2 is ready with 3 workers"
    status = pool.status()
    assert (status["pid"], status["rqsup"], status["counters"]["upgrades"]) == (master, "0.2.0", 1)
    assert pool.process
    assert pool.process.poll() is None
    # The worker of the old code, and no other, ended the job that it had begun before.
    result = job.result(30)
    assert result == {"worker": worker["id"], "attempt": 1, "pid": worker["pid"]}
    wait_until(lambda: {one["generation"] for one in pool.workers()} == {2}, what="the old workers to be gone")


@pytest.mark.slow
def test_five_upgrades_under_load_lose_nothing_and_refuse_nobody(
    pool: Daemon, client: Client, releases: Releases, assert_clean: Callable[[], None]
) -> None:
    jobs, long = 2_000, [client.enqueue("probe.nap", 8.0) for _ in range(2)]
    wait_until(lambda: len(pool.workers("busy")) == 2, what="the long jobs to begin")
    holders = {worker["pid"] for worker in pool.workers("busy")}
    client.enqueue_many(Request("probe.nap", (0.005,)) for _ in range(jobs))

    with Watcher(pool) as watcher:
        for number in range(5):
            releases.install(f"0.2.{number}")
            assert upgrade(pool)["rqsup"] == f"0.2.{number}"
        wait_until(lambda: all_ended(client, jobs + 2), 60, "all jobs to end")

    assert watcher.refused == []
    assert {(picture["pid"], picture["redis_ok"]) for picture in watcher.seen} == {(pool.pid, True)}
    assert min(picture["ready"] for picture in watcher.seen) >= 3
    for name in ("succeeded", "upgrades", "promoted"):
        assert watcher.counts(name) == sorted(watcher.counts(name))
    succeeded = watcher.metric('rqsup_jobs_total{outcome="succeeded"}')
    assert len(succeeded) == len(watcher.pages)
    assert succeeded == sorted(succeeded)
    uptimes = [picture["uptime_s"] for picture in watcher.seen]
    assert uptimes == sorted(uptimes)
    assert {job.result(30)["pid"] for job in long} == holders
    assert all(job.result(1)["attempt"] == 1 for job in long)
    # Not one more than were sent: none was lost, and none ran twice to its end.
    assert stats(client)["succeeded"] == jobs + 2
    assert pool.status()["counters"]["succeeded"] == jobs + 2
    assert_clean()


BROKEN = {
    "syntax error": (("supervisor/master.py", "class Master:", "class Master(:"), "SyntaxError"),
    "import error": (("supervisor/rollout.py", "import random\n", "import no_such_module\n"), "ModuleNotFoundError"),
    "exit at import": (("supervisor/pool.py", "import secrets\n", "import secrets\nraise SystemExit(3)\n"), "status 3"),
    "hang": (("supervisor/cli/run.py", "import threading\n", "import threading, time\ntime.sleep(600)\n"), "check_timeout"),
    "dies": (("supervisor/cli/run.py", "import threading\n", "import threading, os\nos.kill(os.getpid(), 9)\n"), "signal 9"),
    "state version": (("supervisor/estate.py", "\nVERSION = 1", "\nVERSION = 2"), "reads version 2"),
    "worker protocol": (("workers/protocol.py", "NUMBER = 1", "NUMBER = 2"), "speak 1"),
    "state that it cannot read": (("supervisor/estate.py", "    at: float\n", "    at: str\n"), "state of the running master"),
    "too old to know of upgrades": (("supervisor/cli/run.py", "--check-estate", "--other"), "No such option"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_program_that_cannot_take_over_changes_nothing(
    pool: Daemon, client: Client, releases: Releases, broken: str
) -> None:
    change, reason = BROKEN[broken]
    before = {worker["pid"] for worker in pool.workers()}
    if broken == "hang":
        pool.settings["upgrade"] = {"check_timeout": 2}
        pool.write_config()
        pool.ask("reload", wait="drained")
        before = {worker["pid"] for worker in pool.workers()}
    releases.install("0.2.0", change)

    with Watcher(pool) as watcher, pytest.raises(MasterRefused, match=reason) as refusal:
        upgrade(pool)

    assert "nothing changed" in str(refusal.value) or "nothing changed" in pool.status()["last_upgrade"]
    assert refusal.value.exit == 1
    assert min(picture["ready"] for picture in watcher.seen) >= 3
    assert {worker["pid"] for worker in pool.workers()} == before
    assert (pool.status()["rqsup"], pool.status()["state"]) == ("0.1.0", "running")
    assert client.enqueue("probe.nap", 0).result(10)


def test_a_reload_after_an_installation_that_does_not_fit_is_refused(pool: Daemon, releases: Releases) -> None:
    releases.install("0.2.0", BROKEN["worker protocol"][0])

    with pytest.raises(MasterRefused, match="go over to it with `rqsup upgrade`, or restart"):
        pool.ask("reload")

    assert {worker["generation"] for worker in pool.workers()} == {1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"workers": {"count": "many"}}, r"workers\.count"), ({"namespace": "another"}, "namespace: cannot change")],
)
def test_a_configuration_that_does_not_fit_changes_nothing(
    pool: Daemon, releases: Releases, change: dict[str, Any], reason: str
) -> None:
    before = {worker["pid"] for worker in pool.workers()}
    releases.install("0.2.0")
    pool.settings |= change
    pool.write_config()

    with pytest.raises(MasterRefused, match=reason):
        upgrade(pool)

    assert {worker["pid"] for worker in pool.workers()} == before
    assert pool.status()["rqsup"] == "0.1.0"


def test_an_application_that_is_broken_leaves_the_workers_of_the_old_code(
    pool: Daemon, client: Client, releases: Releases
) -> None:
    before = {worker["pid"] for worker in pool.workers()}
    pool.settings["app"] = ["no_such_application"]
    pool.write_config()
    releases.install("0.2.0")

    with pytest.raises(MasterRefused, match=r"took over from 0\.1\.0; the workers are still the old ones.*no_such_app"):
        upgrade(pool)

    assert {worker["pid"] for worker in pool.workers()} == before
    assert pool.status()["rqsup"] == "0.2.0"
    # The zygote came along: it replaces a worker that dies.
    victim = pool.workers()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: pool.status()["ready"] == 3 and victim not in {worker["pid"] for worker in pool.workers()},
        what="a worker in its place",
    )
    assert client.enqueue("probe.nap", 0).result(10)


def find_zygotes(daemon: Daemon) -> list[psutil.Process]:
    children = psutil.Process(daemon.pid).children()
    return [child for child in children if "zygote" in command_line(child.pid)]


def test_a_zygote_that_died_after_the_upgrade_is_replaced(checkout: Daemon) -> None:
    checkout.settings["app"] = ["no_such_application"]
    checkout.write_config()
    with pytest.raises(MasterRefused, match="took over"):
        upgrade(checkout)
    checkout.settings["app"] = ["probe"]
    checkout.write_config()
    wait_until(lambda: len(find_zygotes(checkout)) == 1, what="the failed zygote to be gone")

    find_zygotes(checkout)[0].kill()

    wait_until(lambda: "zygote died; starting another" in checkout.log_text(), what="the death to be seen")
    # Revived with the settings in force, not those of the failed reload.
    wait_until(lambda: checkout.log_text().count("application imported") == 2, what="another zygote")
    assert checkout.status()["ready"] == 3


def test_what_an_operator_said_outlasts_the_upgrade(checkout: Daemon, client: Client) -> None:
    checkout.ask("scale", workers=5)
    checkout.ask("quiet")

    upgrade(checkout, wait="drained")

    status = checkout.status()
    assert (status["target"], status["target_by"], status["state"]) == (5, "operator", "quiet")
    wait_until(lambda: {worker["state"] for worker in checkout.workers()} == {"quiet"}, what="all workers to be quiet")
    job = client.enqueue("probe.nap", 0)
    assert job.refresh().state == JobState.READY
    checkout.ask("resume")
    assert job.result(20)


def test_a_signal_upgrades(checkout: Daemon) -> None:
    checkout.signal(signal.SIGUSR2)

    wait_until(lambda: checkout.status()["counters"]["upgrades"] == 1, UPGRADE_S, "the new program")
    wait_until(lambda: {worker["generation"] for worker in checkout.workers()} == {2}, what="workers of the new code")


def test_a_signal_that_cannot_upgrade_says_why_in_the_log(pool: Daemon, releases: Releases) -> None:
    releases.install("0.2.0", ("supervisor/master.py", "class Master:", "class Master(:"))

    pool.signal(signal.SIGUSR2)

    wait_until(lambda: "upgrade failed" in pool.log_text(), UPGRADE_S, "the reason in the log")
    assert "SyntaxError" in pool.log_text()
    assert pool.status()["last_upgrade"].startswith("failed, nothing changed")


class Door:
    """A release whose program, once executed in place, stands still at its start until it is let in."""

    def __init__(self, folder: Path) -> None:
        self._reached, self._open = folder / "reached", folder / "open"
        line = "    # At once: nothing"
        stand_still = (
            f"    import pathlib\n    if document: pathlib.Path({str(self._reached)!r}).touch()\n"
            f"    while document and not pathlib.Path({str(self._open)!r}).exists(): time.sleep(0.01)\n"
        )
        self.change = ("supervisor/succession.py", line, stand_still + line)

    def wait_until_reached(self) -> None:
        wait_until(self._reached.exists, UPGRADE_S, "the new program to begin")

    def let_in(self) -> None:
        self._open.touch()


def test_a_worker_that_dies_while_the_new_program_starts_is_recovered(
    pool: Daemon, client: Client, releases: Releases, tmp_path: Path, assert_clean: Callable[[], None]
) -> None:
    door = Door(tmp_path)
    releases.install("0.2.0", door.change)
    job, victim = client.enqueue("probe.wait_for", str(tmp_path / "end")), pool.busy_worker()
    pool.signal(signal.SIGUSR2)
    door.wait_until_reached()

    os.kill(victim["pid"], signal.SIGKILL)
    (tmp_path / "end").touch()
    door.let_in()

    assert job.result(30)["attempt"] == 2
    wait_until(lambda: {worker["generation"] for worker in pool.workers()} == {2}, what="workers of the new code")
    counters = pool.status()["counters"]
    assert (counters["deaths"], counters["crashed"], counters["recovered"]) == (1, 1, 1)
    assert "killed by SIGKILL" in pool.log_text()
    assert_clean()


def test_a_stop_that_comes_while_the_new_program_starts_is_carried_out(
    pool: Daemon, client: Client, releases: Releases, tmp_path: Path, assert_clean: Callable[[], None]
) -> None:
    door = Door(tmp_path)
    releases.install("0.2.0", door.change)
    job = client.enqueue("probe.wait_for", str(tmp_path / "end"))
    worker = pool.busy_worker()
    pool.signal(signal.SIGUSR2)
    door.wait_until_reached()

    pool.signal(signal.SIGTERM)
    door.let_in()
    wait_until(lambda: "stopping" in pool.log_text(), what="the stop to begin")
    (tmp_path / "end").touch()

    assert pool.wait() == 0
    # It was drained, not killed.
    assert job.result(1) == {"worker": worker["id"], "attempt": 1, "pid": worker["pid"]}
    assert_clean()


@pytest.mark.parametrize(
    "change",
    [
        ("supervisor/bequest.py", "    _take_master(master, left.master)\n", "    raise KeyError('no heir')\n"),
        ("supervisor/succession.py", "descriptor = int(document)", "descriptor = int('no number')"),
    ],
    ids=["late", "early"],
)
def test_a_program_that_fails_when_there_is_no_way_back_starts_afresh(
    pool: Daemon, client: Client, releases: Releases, change: tuple[str, str, str],
    assert_clean: Callable[[], None],
) -> None:  # fmt: skip
    job, workers = (
        client.enqueue("probe.wait_for", str(releases.folder / "end")),
        {worker["pid"] for worker in pool.workers()},
    )
    pool.busy_worker()
    releases.install("0.2.0", change)

    with pytest.raises(MasterUnreachable, match="ended before it had answered"):
        upgrade(pool)

    wait_until(lambda: pool.is_ready(3), UPGRADE_S, "the master to start afresh")
    assert pool.status()["pid"] == pool.pid
    assert "the upgrade cannot be completed" in pool.log_text()
    assert not any(is_alive(pid) for pid in workers)
    # Found at once, without waiting for the lease to end; and not charged to the job.
    wait_until(lambda: "its master on this machine died" in pool.log_text(), what="the job to come back")
    (releases.folder / "end").touch()
    assert job.result(30)["attempt"] == 1
    assert_clean()


def test_one_thing_at_a_time_and_a_stop_wins(pool: Daemon, releases: Releases) -> None:
    releases.install("0.2.0", BROKEN["hang"][0])
    pool.signal(signal.SIGUSR2)
    wait_until(lambda: pool.status()["state"] == "upgrading", what="the check")
    (check,) = [
        process for process in psutil.Process(pool.pid).children() if "--check-estate" in command_line(process.pid)
    ]

    with pytest.raises(MasterRefused, match="an upgrade is already under way"):
        upgrade(pool)
    with pytest.raises(MasterRefused, match="an upgrade is under way"):
        pool.ask("reload")
    pool.signal(signal.SIGTERM)

    assert pool.wait() == 0
    assert not check.is_running()


def test_a_reload_that_is_under_way_is_not_broken_off(pool: Daemon, tmp_path: Path, releases: Releases) -> None:
    pool.settings["canary"] = {"jobs": 1, "timeout": 600}
    pool.write_config()
    pool.signal(signal.SIGHUP)
    wait_until(lambda: pool.status()["state"] == "reloading", what="the reload")

    with pytest.raises(MasterRefused, match="a reload is under way"):
        upgrade(pool)

    assert pool.status()["state"] == "reloading"


def test_a_program_that_cannot_be_executed_leaves_everything_as_it_was(
    redis_server: LocalServer, namespace: str, client: Client, releases: Releases
) -> None:
    releases.install("0.1.0", ("supervisor/program.py", "os.execve(self.path", "os.execve('/no/such/program'"))
    daemon = Daemon(redis_server.url, namespace, workers={"count": 2})
    daemon.environ = releases.environ
    daemon.start()
    try:
        with Watcher(daemon) as watcher, pytest.raises(MasterRefused, match="cannot be executed"):
            upgrade(daemon)

        assert watcher.refused == []
        daemon.signal(signal.SIGTTIN)
        wait_until(lambda: daemon.status()["ready"] == 3, what="one worker more")
        assert_private(daemon.pid)
        assert client.enqueue("probe.nap", 0).result(10)
    finally:
        assert daemon.stop() == 0


def open_files(pid: int) -> int:
    """Number of its open files; 0 when it has ended by now."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def assert_private(pid: int) -> None:
    """No program that the process starts would have any of its files, but the standard ones."""
    flags: dict[int, str] = {}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        # A connection of a command may be closed between the look at the folder and that at the file.
        with contextlib.suppress(FileNotFoundError):
            flags[int(file.name)] = file.read_text()
    shared = [
        number
        for number, text in flags.items()
        if number > 2 and not int(text.split("flags:")[1].split()[0], 8) & os.O_CLOEXEC
    ]
    assert shared == []


@pytest.mark.slow
def test_many_upgrades_leave_nothing_open(checkout: Daemon, client: Client) -> None:
    def picture() -> list[int]:
        pids = [checkout.pid, *sorted(child.pid for child in psutil.Process(checkout.pid).children())]
        return [open_files(pid) for pid in pids]

    seen: list[list[int]] = []
    for _ in range(5):
        upgrade(checkout, wait="drained")
        client.enqueue("probe.nap", 0).result(10)
        # The zygote of the generation before may still be on its way out.
        wait_until(lambda: len(counts := picture()) == 5 and all(counts), what="one zygote and three workers")
        wait_until(lambda: not seen or picture() == seen[0], what=f"as many open files as at first: {seen}")
        seen.append(picture())

    assert checkout.status()["counters"]["upgrades"] == 5
    assert_private(checkout.pid)


def test_while_redis_is_away_an_upgrade_keeps_what_is_owed(
    private_redis: LocalServer, private_client: Client, namespace: str, tmp_path: Path
) -> None:
    daemon = Daemon(private_redis.url, namespace, workers={"count": 2})
    daemon.start()
    try:
        job = private_client.enqueue("probe.wait_for", str(tmp_path / "end"))
        victim = daemon.busy_worker()
        private_redis.kill()
        os.kill(victim["pid"], signal.SIGKILL)
        wait_until(lambda: "worker died" in daemon.log_text(), what="the death to be seen")
        wait_until(lambda: not daemon.status()["redis_ok"], what="Redis to be missed")

        assert upgrade(daemon)["generation"] == 2

        assert not daemon.status()["redis_ok"]
        (tmp_path / "end").touch()
        private_redis.start()
        assert job.result(60)["attempt"] == 2
        assert daemon.status()["counters"]["crashed"] == 1
    finally:
        daemon.stop()
        print(daemon.log_text()[-8000:])  # noqa: T201 - pytest shows it with a failure


def test_a_master_without_workers_is_upgraded_too(redis_server: LocalServer, namespace: str, client: Client) -> None:
    daemon = Daemon(redis_server.url, namespace, workers={"count": 2})
    daemon.launch("--role", "scheduler")
    try:
        wait_until(lambda: daemon.is_ready(0) and daemon.status()["state"] == "running", what="the scheduler")

        assert "generation" not in upgrade(daemon)

        assert daemon.status()["counters"]["upgrades"] == 1
        later = client.enqueue_in(0.1, "probe.nap", 0)
        wait_until(lambda: later.refresh().state == JobState.READY, what="the job to become due")
    finally:
        assert daemon.stop() == 0
