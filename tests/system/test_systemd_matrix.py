"""The matrix: what a service manager does with a pool, rule by rule, in a real systemd. docs/ops/systemd.md lists the rules."""

from __future__ import annotations

import json
import re
import time

import pytest

from rqsup.supervisor import exits
from tests.system.service import Service
from tests.system.test_systemd import runs
from tests.waiting import wait_until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]

#: Tasks that look at the world from inside the service.
APP = """\
import ctypes, mmap, multiprocessing, os, resource, signal, socket, subprocess, sys, time
from pathlib import Path
from rqsup import task

@task(name="nap")
def nap(seconds):
    time.sleep(float(seconds))

@task(name="look")
def look():
    return {"environ": dict(os.environ), "uid": os.getuid(), "cgroup": Path("/proc/self/cgroup").read_text()}

@task(name="stray")
def stray():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    return child.pid

@task(name="speak")
def speak(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(text.encode(), "/run/systemd/notify")

@task(name="works")
def works():
    socket.getaddrinfo("localhost", 80)
    os.close(os.pidfd_open(os.getpid()))
    os.close(os.memfd_create("x"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    multiprocessing.Lock()
    Path("/proc/self/smaps_rollup").read_text(), Path("/proc/meminfo").read_text(), Path("/proc/stat").read_text()
    Path(os.environ["STATE_DIRECTORY"], "note").write_text("kept")
    assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)() == 3
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()

@task(name="denied")
def denied():
    def attempt(call):
        try:
            call()
        except OSError:
            return "denied"
        return "done"
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        "etc": attempt(lambda: Path("/etc/rqsup/x").write_text("x")),
        "home": attempt(lambda: os.listdir("/root")),
        "raw": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "mount": "done" if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 else "denied",
        "setuid": attempt(lambda: os.setuid(0)),
        "code": attempt(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)),
    }
"""


@pytest.fixture
def pool(service: Service) -> Service:
    """An instance with these tasks, not started yet."""
    service.write_app(APP)
    return service


@pytest.fixture
def live(pool: Service) -> Service:
    pool.systemctl("start")
    return pool


def test_01_a_reload_is_synchronous_and_a_failed_one_fails_the_command(live: Service) -> None:
    assert live.shown("Type") == "notify"
    assert live.systemctl("reload").returncode == 0
    assert live.status()["generation"] == 2

    live.write_app("import no_such_module\n")
    done = live.systemctl("reload", check=False)

    assert done.returncode != 0
    assert "no_such_module" in live.journal()
    assert (live.shown("ActiveState"), live.shown("SubState")) == ("active", "running")


def test_03_the_watchdog_is_served_while_the_master_drains(live: Service) -> None:
    live.send(1, 5)  # WatchdogSec of these tests is 2
    wait_until(lambda: live.status().get("busy") == 1, what="the job to begin")

    live.systemctl("stop")

    assert live.shown("Result") == "success"
    assert "Watchdog timeout" not in live.journal()


def test_04_a_drain_may_take_longer_than_the_stop_timeout(pool: Service) -> None:
    pool.drop_in("short", "TimeoutStopSec=2")
    pool.systemctl("start")
    (job,) = pool.send(1, 5)
    wait_until(lambda: pool.status().get("busy") == 1, what="the job to begin")

    pool.systemctl("stop")

    assert pool.jobs([job])[0][0] == "succeeded"
    assert pool.shown("Result") == "success"


def test_05_a_killed_master_takes_workers_and_strays_with_it(live: Service) -> None:
    stray = live.call("stray")
    master, workers = live.main_pid, live.worker_pids()
    assert runs(live.box, stray)

    live.box.run("kill", "-KILL", str(master))

    wait_until(lambda: live.main_pid not in {0, master}, what="the restart")
    wait_until(lambda: not any(runs(live.box, pid) for pid in {stray, *workers}), what="their end")


def test_06_the_watchdog_is_tied_to_the_loop_and_not_to_redis(live: Service) -> None:
    live.box.run("systemctl", "stop", "test-redis")
    try:
        away_since = time.monotonic()
        # Longer than WatchdogSec=2: that it lives through this is the fact waited for.
        wait_until(
            lambda: time.monotonic() - away_since > 5 and "Redis away" in live.shown("StatusText"), what="Redis away"
        )
        assert (live.shown("NRestarts"), live.shown("ActiveState")) == ("0", "active")
    finally:
        live.box.run("systemctl", "start", "test-redis")
        live.box.run("timeout", "10", "sh", "-c", "until test -S /run/test-redis/redis.sock; do sleep 0.01; done")
    wait_until(lambda: live.status().get("redis_ok"), what="Redis back")


def test_07_crashes_are_limited_and_a_broken_configuration_is_not_started_again(pool: Service) -> None:
    pool.drop_in("limit", "RestartSec=50ms\n[Unit]\nStartLimitBurst=3")
    pool.systemctl("start")

    def kill_until_given_up() -> bool:
        pool.systemctl("kill", "-s", "KILL", check=False)
        return pool.shown("ActiveState") == "failed"

    wait_until(kill_until_given_up, what="systemd to give up")
    assert pool.shown("Result") in {"start-limit-hit", "signal"}
    pool.configure("workers: {count: none}\n")
    pool.systemctl("reset-failed")

    assert pool.systemctl("start", check=False).returncode != 0
    assert (pool.shown("ExecMainStatus"), pool.shown("NRestarts")) == (str(exits.CONFIG), "0")


def test_08_a_missing_credential_means_no_password(live: Service) -> None:
    assert live.status()["redis_ok"]
    modes = live.box.run("stat", "-c", "%a", f"/run/credentials/{live.unit}/redis-password").stdout.strip()
    assert modes in {"400", "440"}


@pytest.mark.parametrize("encrypted", [False, True])
def test_08_the_password_is_read_from_the_credential_and_shown_nowhere(pool: Service, encrypted: bool) -> None:
    phrase = "correct-horse"
    path = f"/etc/rqsup/{pool.name}.redis-password"
    pool.box.write(path, f"{phrase}\n", mode=0o600)
    if encrypted:
        pool.box.run("systemd-creds", "--with-key=host", "encrypt", "--name=redis-password", path, f"{path}.cred")
        pool.box.run("rm", path)
        pool.drop_in("creds-encrypted")

    pool.box.run("systemctl", "start", "--no-block", pool.unit)

    # The server has no password, so it refuses the one that it is shown: by that we see that it was shown.
    wait_until(lambda: "password" in pool.journal(), what="the server to refuse the password")
    assert phrase not in pool.journal()
    assert phrase not in pool.systemctl("status", check=False).stdout
    main = wait_until(lambda: pool.main_pid, what="the master")
    for name in ("cmdline", "environ"):
        assert phrase not in pool.box.run("cat", f"/proc/{main}/{name}", check=False).stdout


def test_08_a_missing_encrypted_credential_means_no_password_too(pool: Service) -> None:
    pool.drop_in("creds-encrypted")

    pool.systemctl("start")

    assert pool.status()["redis_ok"]


def test_09_verify_has_no_remarks_on_any_combination(pool: Service) -> None:
    for name in ("strict", "gpu", "cgroups", "creds-encrypted", "oom-fail"):
        pool.drop_in(name)

    done = pool.box.run("systemd-analyze", "verify", pool.unit, "rqsup.target")

    # Its exit status is 0 even with remarks.
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(("drop_in", "most"), [("", 1.2), ("strict", 1.1), ("gpu", 1.4), ("cgroups", 1.5)])
def test_10_the_exposure_is_low(pool: Service, drop_in: str, most: float) -> None:
    if drop_in:
        pool.drop_in(drop_in)

    report = pool.box.run("systemd-analyze", "security", pool.unit).stdout

    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert score
    assert float(score[1]) <= most


def test_11_the_journal_knows_the_level_of_each_line(live: Service) -> None:
    live.box.run("kill", "-KILL", str(min(live.worker_pids())))

    def warnings() -> str:
        return live.box.run("journalctl", "-u", live.unit, "-p", "warning", "-o", "json", "--no-pager").stdout

    wait_until(lambda: "worker died" in warnings(), what="the warning in the journal")
    entry = next(json.loads(line) for line in warnings().splitlines() if "worker died" in line)
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("4", f"rqsup-{live.name}")
    assert not entry["MESSAGE"].startswith("<")
    assert "worker ready" not in warnings()


def test_12_a_dead_worker_does_not_end_the_unit(live: Service) -> None:
    assert live.shown("OOMPolicy") == "continue"
    before = live.worker_pids()

    live.box.run("kill", "-KILL", *map(str, before))

    wait_until(lambda: len(live.worker_pids() - before) == 2, what="two new workers")
    assert (live.shown("ActiveState"), live.shown("NRestarts")) == ("active", "0")


def test_13_the_watch_of_memory_pressure_sheds_load(pool: Service) -> None:
    # As systemd 254 and later set it; a FIFO is one of the three things that it may name.
    fifo = f"/run/rqsup/{pool.name}/pressure"
    pool.drop_in("watch", f"ExecStartPre=/usr/bin/mkfifo {fifo}\nEnvironment=MEMORY_PRESSURE_WATCH={fifo}")
    pool.systemctl("start")

    pool.box.run("sh", "-c", f"echo > {fifo}")

    wait_until(lambda: pool.status().get("state") == "shedding", what="shed load")
    assert "memory pressure" in pool.shown("StatusText")
    wait_until(lambda: pool.status().get("state") == "running", what="the end of it")
    pool.await_success(pool.send(1, 0))


def test_14_the_sandbox_leaves_jobs_what_they_need_and_denies_the_rest(live: Service) -> None:
    assert live.call("works") == f"rqsup-{live.name}"
    denied = live.call("denied")
    assert denied.pop("code") == "done"
    assert set(denied.values()) == {"denied"}


def test_14_strict_denies_code_made_at_run_time(pool: Service) -> None:
    pool.drop_in("strict")
    pool.systemctl("start")

    assert pool.call("works") == f"rqsup-{pool.name}"
    assert pool.call("denied")["code"] == "denied"


def test_15_no_child_can_speak_in_the_masters_name(live: Service) -> None:
    environ = live.call("look")["environ"]
    before = wait_until(lambda: _if_idle(live.shown("StatusText")), what="the status of idle workers")

    live.call("speak", "STATUS=all is lost\nSTOPPING=1")

    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS"} & environ.keys()
    assert live.shown("NotifyAccess") == "main"
    # What it says while the job runs is gone again; "all is lost" would stay until the next change.
    wait_until(lambda: live.shown("StatusText") == before, what="the status")
    assert live.shown("ActiveState") == "active"


def _if_idle(text: str) -> str:
    return text if " 0 busy" in text else ""


def test_16_it_is_ready_when_redis_answers_and_the_workers_are_and_not_before(pool: Service) -> None:
    late = f"/run/late-{pool.name}.sock"
    pool.drop_in("late", f"Environment=RQSUP_REDIS__URL=unix://{late} RQSUP_REDIS__CONNECT_TRIES=20\nTimeoutStartSec=3")

    pool.box.run("systemctl", "start", "--no-block", pool.unit)

    # It asks for more time than TimeoutStartSec while it waits.
    wait_until(lambda: "waiting for Redis" in pool.shown("StatusText"), what="the wait for Redis")
    assert pool.shown("ActiveState") == "activating"
    pool.box.run("ln", "-s", "/run/test-redis/redis.sock", late)
    wait_until(lambda: pool.shown("ActiveState") == "active", what="the start")
    assert pool.status()["ready"] == 2
