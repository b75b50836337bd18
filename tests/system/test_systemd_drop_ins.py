"""The shipped drop-ins at work, and the command that installs them, in a real systemd."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqsup.supervisor import exits
from tests.system.sdbox import SystemdBox
from tests.system.service import APP, Service
from tests.system.test_systemd import runs
from tests.system.test_systemd_matrix import APP as TASKS
from tests.waiting import wait_until

pytestmark = [pytest.mark.systemd, pytest.mark.slow]
EATER = """\
from rqsup import task

@task(name="eat")
def eat(megabytes):
    return len(bytearray(b"x") * (int(megabytes) << 20))
"""


@pytest.fixture
def pool(service: Service) -> Service:
    service.write_app(TASKS)
    return service


def test_cgroups_gives_each_worker_a_leaf_whose_end_takes_strays_along(pool: Service) -> None:
    pool.drop_in("cgroups")
    pool.systemctl("start")
    stray = pool.call("stray")
    root = f"/sys/fs/cgroup/{pool.shown('ControlGroup')}"
    leaves = pool.box.run("sh", "-c", f"ls -d {root}/*/").stdout.split()
    assert f"{root}/supervisor/" in leaves
    assert len([leaf for leaf in leaves if f"/rqsup-{pool.name}." in leaf]) == 2
    assert runs(pool.box, stray)

    pool.systemctl("reload")

    wait_until(lambda: not runs(pool.box, stray), what="the stray's end")
    assert pool.shown("ActiveState") == "active"
    pool.systemctl("stop")
    assert pool.shown("Result") == "success"


def test_cgroups_without_delegation_is_refused_by_name_and_not_tried_again(pool: Service) -> None:
    pool.drop_in("undelegated", "Environment=RQSUP_WORKERS__CGROUPS=leaf")

    assert pool.systemctl("start", check=False).returncode != 0

    assert (pool.shown("ExecMainStatus"), pool.shown("NRestarts")) == (str(exits.CONFIG), "0")
    assert "workers.cgroups: leaf is demanded, but" in pool.journal()
    assert "install the drop-in cgroups.conf" in pool.journal()


def test_app_user_runs_as_that_user(pool: Service) -> None:
    pool.box.run("useradd", "--system", "--user-group", "app", check=False)
    pool.drop_in("app-user")

    pool.systemctl("start")

    assert pool.call("look")["uid"] == int(pool.box.run("id", "-u", "app").stdout)


def test_gpu_shows_the_machines_devices(pool: Service) -> None:
    pool.drop_in("gpu")

    pool.systemctl("start")

    assert pool.call("works") == f"rqsup-{pool.name}"


def is_left(folder: Path) -> bool:
    """Move all processes out of a cgroup; True when it is empty: meanwhile they may have forked others."""
    for pid in (folder / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (folder.parent / "cgroup.procs").write_text(pid)
    return not (folder / "cgroup.procs").read_text()


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A cgroup v1 with little memory, made outside of the box: inside there is no memory controller."""
    folder = Path(f"/sys/fs/cgroup/memory/rqsup-box-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(400 << 20))
    except OSError as fault:
        pytest.skip(f"no memory can be limited here: {fault}")
    yield folder
    wait_until(lambda: is_left(folder), what="an empty cgroup")
    folder.rmdir()


@pytest.mark.parametrize("fails", [False, True], ids=["continue", "fail"])
def test_an_oom_kill_fails_the_unit_only_on_demand(service: Service, little_memory: Path, fails: bool) -> None:
    service.write_app(APP + EATER)
    if fails:
        service.drop_in("oom-fail")
    service.systemctl("start")
    before = service.worker_pids()
    # The pids of the service as they are outside of the box.
    outside = service.box.outside_pids(service.shown("ControlGroup"))
    for pid in outside:
        (little_memory / "cgroup.procs").write_text(str(pid))

    service.box.run(
        "/opt/rqsup/bin/python", "-c",
        "import sys; from rqsup import Client; Client(sys.argv[1], namespace=sys.argv[2]).enqueue('eat', 800)",
        "unix:///run/test-redis/redis.sock", service.name,
    )  # fmt: skip

    if fails:
        wait_until(lambda: service.shown("ActiveState") == "failed", what="the unit to fail")
        assert (service.shown("ExecMainStatus"), service.shown("NRestarts")) == (str(exits.OUT_OF_MEMORY), "0")
    else:
        wait_until(lambda: "memory ran out (OOM)" in service.journal(), what="the cause of death")
        wait_until(lambda: len(service.worker_pids()) == 2 != len(service.worker_pids() & before), what="a new worker")
        assert service.shown("NRestarts") == "0"


def test_install_writes_verifies_and_explains_and_the_service_starts(service: Service) -> None:
    box, pool = service.box, f"new-{service.name}"
    install = ["rqsup", "systemd", "install", "--pool", pool, "--drop-in", "cgroups"]

    shown = box.run(*install, "--dry-run").stdout
    assert f"would write: /etc/rqsup/{pool}.yaml" in shown
    assert box.run("test", "-e", f"/etc/rqsup/{pool}.yaml", check=False).returncode != 0

    report = json.loads(box.run(*install, "--json").stdout)
    assert report["exposure"] <= 1.5
    assert {Path(file["path"]).name for file in report["files"]} >= {"cgroups.conf", f"{pool}.yaml"}
    assert f"systemctl enable --now rqsup@{pool} rqsup.target" in "\n".join(report["next"])

    # What it says comes next: the settings, then the start.
    box.write(f"/etc/rqsup/{pool}.yaml", box.run("cat", f"/etc/rqsup/{service.name}.yaml").stdout.replace(
        f"pool: {service.name}", f"pool: {pool}"))  # fmt: skip
    box.run("cp", f"/etc/rqsup/{service.name}.env", f"/etc/rqsup/{pool}.env")
    box.run("systemctl", "enable", "--now", f"rqsup@{pool}", "rqsup.target")
    assert box.run("systemctl", "is-active", f"rqsup@{pool}").stdout.strip() == "active"
    box.run("systemctl", "disable", "--now", f"rqsup@{pool}")

    # Again: nothing to do, the settings kept; and what somebody changed is not written over.
    again = json.loads(box.run(*install, "--json").stdout)
    assert {file["action"] for file in again["files"]} == {"unchanged", "keep"}
    unit = "/etc/systemd/system/rqsup@.service"
    original = box.run("cat", unit).stdout
    box.write(unit, original + "# mine\n")
    refused = box.run(*install, check=False)
    assert refused.returncode == exits.FAILURE
    assert f"{unit} differ(s) from what would be written" in refused.stderr
    box.run(*install, "--force")
    assert box.run("cat", unit).stdout == original


def test_install_refuses_what_systemd_remarks_on_and_writes_nothing(box: SystemdBox) -> None:
    box.write("/etc/systemd/system/rqsup@odd.service.d/mine.conf", "[Service]\nNoSuchKey=1\n")

    done = box.run("rqsup", "systemd", "install", "--pool", "odd", check=False)

    assert done.returncode == exits.FAILURE
    assert "nothing was written" in done.stderr
    assert "NoSuchKey" in done.stderr
    assert box.run("test", "-e", "/etc/rqsup/odd.yaml", check=False).returncode != 0


def test_install_without_root_says_what_to_do(box: SystemdBox) -> None:
    done = box.run(
        "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
        "rqsup", "systemd", "install", "--pool", "plain", check=False,
    )  # fmt: skip

    assert done.returncode == exits.FAILURE
    assert "run it with sudo, or look first with --dry-run" in done.stderr
