"""The shipped unit in a real systemd."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.system import sdbox
from tests.system.sdbox import SystemdBox
from tests.system.service import APP, Service, names
from tests.waiting import wait_until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]


def runs(box: SystemdBox, pid: int) -> bool:
    """Whether there is such a process inside."""
    return box.run("test", "-d", f"/proc/{pid}", check=False).returncode == 0


def test_start_returns_when_the_workers_are_ready(service: Service) -> None:
    service.systemctl("start")

    picture = service.status()
    assert (picture["state"], picture["ready"]) == ("running", 2)
    assert service.shown("ActiveState") == "active"


def test_systemctl_status_shows_the_state_of_the_pool(running: Service) -> None:
    wait_until(lambda: "2/2 ready" in running.shown("StatusText"), what="the status text")

    shown = running.systemctl("status").stdout

    assert re.search(r'Status: "2/2 ready, 0 busy', shown)
    assert f"rqsup: master [{running.name}]" in shown


def test_a_good_reload_replaces_the_workers_and_returns_then(running: Service) -> None:
    master, old = running.main_pid, running.worker_pids()

    running.systemctl("reload")

    picture = running.status()
    assert picture["generation"] == 2
    assert running.main_pid == master
    wait_until(lambda: not running.worker_pids() & old, what="the old workers to be gone")
    assert running.shown("ActiveState") == "active"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [("app", "SyntaxError"), ("import", "no_such_module"), ("config", "workers.count")],
)
def test_a_bad_reload_fails_says_why_and_changes_nothing(running: Service, broken: str, reason: str) -> None:
    old = running.worker_pids()
    if broken == "config":
        running.configure("workers: {count: -1}\n")
    else:
        running.write_app("def nap(:\n" if broken == "app" else "import no_such_module\n")

    done = running.systemctl("reload", check=False)

    assert done.returncode != 0
    assert reason in running.journal()
    assert running.shown("ActiveState") == "active"
    assert running.shown("SubState") == "running"
    running.configure(f"pool: {running.name}\n")
    assert running.worker_pids() == old
    if broken != "config":  # that one is refused before the master is asked
        assert reason in running.status()["last_reload"]
        wait_until(lambda: "last reload failed" in running.shown("StatusText"), what="the reason in the status text")


def test_stop_lets_the_running_job_finish(running: Service) -> None:
    (job,) = running.send(1, 5)
    wait_until(lambda: running.status().get("busy") == 1, what="the job to begin")

    running.systemctl("stop")

    assert running.jobs([job])[0][0] == "succeeded"
    assert running.shown("Result") == "success"
    assert "stopping" in running.journal()


def test_a_killed_master_leaves_no_process_and_loses_no_job(running: Service) -> None:
    # Each longer than it takes to look at the status.
    jobs = running.send(4, 3)
    wait_until(lambda: running.status().get("busy") == 2, what="two jobs to begin")
    master, workers = running.main_pid, running.worker_pids()

    running.box.run("kill", "-KILL", str(master))

    wait_until(lambda: running.main_pid not in {0, master}, what="the restart")
    wait_until(lambda: not any(runs(running.box, pid) for pid in workers), what="the end of its workers")
    results = running.await_success(jobs)
    assert running.shown("NRestarts") == "1"
    # Run at most once more: by the new master, or by a worker that took it before the kernel had killed it.
    assert max(result["attempt"] for result in results) <= 2


def test_a_master_that_hangs_is_killed_by_the_watchdog_and_loses_no_job(running: Service) -> None:
    jobs = running.send(4, 0.5)
    master = running.main_pid

    running.box.run("kill", "-STOP", str(master))

    wait_until(lambda: running.main_pid not in {0, master}, timeout_s=30, what="the restart by the watchdog")
    assert running.shown("NRestarts") == "1"
    assert "Watchdog timeout" in running.journal()
    running.await_success(jobs)


def test_a_quiet_loop_does_not_starve_the_watchdog(running: Service) -> None:
    running.send(1, 5)  # longer than WatchdogSec=2 of the test

    running.systemctl("stop")

    assert running.shown("Result") == "success"
    assert "Watchdog timeout" not in running.journal()


def test_a_broken_configuration_is_not_started_again(service: Service) -> None:
    service.configure("workers: {count: none, lease: 3}\n")

    done = service.systemctl("start", check=False)

    assert done.returncode != 0
    assert service.shown("ExecMainStatus") == "78"
    assert service.shown("NRestarts") == "0"
    assert service.shown("ActiveState") == "failed"
    assert "workers.count" in service.journal()
    assert "workers.lease: unknown key" in service.journal()


def test_the_control_socket_is_for_root_and_the_service_alone(running: Service) -> None:
    done = running.box.run(
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
        "rqsup", "stop", "-c", f"/etc/rqsup/{running.name}.yaml", check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert running.status()["state"] == "running"


def test_the_password_comes_from_the_credential(box: SystemdBox) -> None:
    service = Service(box, next(names))
    box.write(f"/etc/rqsup/{service.name}.redis-password", "wrong-password\n", mode=0o600)

    service.box.run("systemctl", "start", "--no-block", service.unit)

    # The server has no password, so it refuses the one that it is shown.
    wait_until(lambda: "password" in service.journal(), timeout_s=20, what="the server to refuse the password")
    assert "wrong-password" not in service.journal()
    service.systemctl("kill", "-s", "KILL", check=False)
    service.systemctl("stop", check=False)


def test_jobs_find_the_application_as_it_was_deployed(running: Service) -> None:
    running.write_app(APP.replace('{"pid"', '{"edition": 2, "pid"'))
    running.systemctl("reload")

    (result,) = running.await_success(running.send(1, 0))

    assert result["edition"] == 2


def test_the_unit_is_hardened(box: SystemdBox) -> None:
    verified = box.run("systemd-analyze", "verify", "rqsup@mail.service", "rqsup.target")
    report = box.run("systemd-analyze", "security", "rqsup@mail.service").stdout

    assert verified.stdout + verified.stderr == ""
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert score is not None
    assert float(score[1]) <= 1.5


@pytest.mark.parametrize("name", sorted(path.name for path in (sdbox.CHECKOUT / "systemd/drop-ins").glob("*.conf")))
def test_each_drop_in_is_understood(box: SystemdBox, name: str) -> None:
    settings = Path(sdbox.CHECKOUT / "systemd/drop-ins" / name).read_text()
    needed = re.search(r"Needs systemd (\d+)", settings)
    if needed and int(box.run("systemctl", "--version").stdout.split()[1]) < int(needed[1]):
        pytest.skip(f"needs systemd {needed[1]}")
    box.write(f"/etc/systemd/system/rqsup@dropin.service.d/{name}", settings)
    box.run("systemctl", "daemon-reload")

    verified = box.run("systemd-analyze", "verify", "rqsup@dropin.service")

    box.run("rm", f"/etc/systemd/system/rqsup@dropin.service.d/{name}")
    assert verified.stderr == ""


def test_a_pool_runs_under_the_strict_drop_in_too(service: Service) -> None:
    strict = Path(sdbox.CHECKOUT / "systemd/drop-ins/strict.conf").read_text()
    service.box.write(f"/etc/systemd/system/{service.unit}.d/strict.conf", strict)
    service.box.run("systemctl", "daemon-reload")

    service.systemctl("start")

    service.await_success(service.send(2, 0))


def test_what_a_job_prints_is_in_the_journal_with_fields_of_its_own(service: Service) -> None:
    service.write_app(
        "from rqsup import task\n@task(name='nap')\ndef nap(seconds):\n    print('good night', seconds)\n    return 1\n"
    )
    service.systemctl("start")

    [job] = service.send(1, 0.0)

    def entries() -> list[dict[str, str]]:
        shown = service.box.run("journalctl", "-o", "json", f"RQSUP_JOB={job}", check=False).stdout
        return [json.loads(line) for line in shown.splitlines() if line.startswith("{")]

    [entry] = wait_until(entries, what="the line in the journal")
    fields = {name: value for name, value in entry.items() if name.startswith("RQSUP_") or name == "MESSAGE"}
    assert fields.pop("RQSUP_WORKER") in {"1", "2"}
    assert fields == {
        "MESSAGE": "good night 0.0", "RQSUP_JOB": job, "RQSUP_TASK": "nap", "RQSUP_POOL": service.name, "RQSUP_GENERATION": "1",
    }  # fmt: skip
    assert entry["_SYSTEMD_UNIT"] == service.unit


def test_an_upgrade_keeps_the_unit_and_its_jobs(running: Service) -> None:
    master, (job,) = running.main_pid, running.send(1, 8)
    worker = wait_until(
        lambda: next((one["pid"] for one in running.status()["workers"] if one["job_id"]), None),
        what="the job to begin",
    )
    # What `pip install -U` does: from now on, another rqsup is found first.
    running.box.run("cp", "-rL", f"{sdbox.SOURCE}/rqsup", f"{running.folder}/rqsup")
    running.box.run("sed", "-i", 's/^__version__ = .*/__version__ = "9.9.9"/', f"{running.folder}/rqsup/__init__.py")

    told = running.box.run("rqsup", "upgrade", "-c", f"/etc/rqsup/{running.name}.yaml").stdout

    assert "rqsup 9.9.9 took over" in told
    picture = running.status()
    assert (picture["rqsup"], picture["pid"], picture["generation"]) == ("9.9.9", master, 2)
    assert (running.main_pid, running.shown("NRestarts")) == (master, "0")
    assert (running.shown("ActiveState"), running.shown("SubState")) == ("active", "running")
    (result,) = running.await_success([job])
    assert (result["pid"], result["attempt"]) == (worker, 1)
    # The new program is watched as the old one was, and keeps reporting.
    assert running.shown("WatchdogUSec") == "2s"
    wait_until(lambda: "2/2 ready, 0 busy, gen 2" in running.shown("StatusText"), what="the status text of the new one")
    stamp = running.shown("WatchdogTimestampMonotonic")
    wait_until(lambda: running.shown("WatchdogTimestampMonotonic") != stamp, what="the watchdog to be fed")


def test_an_upgrade_to_a_broken_rqsup_fails_says_why_and_changes_nothing(running: Service) -> None:
    master, old = running.main_pid, running.worker_pids()
    running.write_app(APP)
    running.box.run("cp", "-rL", f"{sdbox.SOURCE}/rqsup", f"{running.folder}/rqsup")
    running.box.write(f"{running.folder}/rqsup/supervisor/master.py", "class Master(:\n")

    done = running.box.run("rqsup", "upgrade", "-c", f"/etc/rqsup/{running.name}.yaml", check=False)

    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "SyntaxError" in running.journal()
    assert (running.main_pid, running.worker_pids()) == (master, old)
    assert (running.shown("ActiveState"), running.shown("SubState")) == ("active", "running")
    wait_until(lambda: running.shown("StatusText").startswith("2/2 ready"), what="the pool to go on")
