"""A cgroup for each worker: what its jobs start ends with it, however it was started."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client
from rqsup.settings import Settings, WorkerSettings
from rqsup.store.server import LocalServer
from rqsup.supervisor import exits
from rqsup.supervisor.leaves import MASTERS_LEAF, Leaves, members, own_cgroup, why_not
from tests.system.daemon import Daemon, is_alive
from tests.waiting import wait_until

counter = itertools.count()
StartIn = Callable[..., Daemon]


def cgroup_mount() -> Path | None:
    return own_cgroup("0::/", Path("/proc/self/mountinfo").read_text())


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup v2 of our own, empty at the end again; skips where none can be made."""
    mount = cgroup_mount()
    if os.geteuid() != 0 or mount is None:
        pytest.skip("needs root and a cgroup v2")
    folder = mount / f"rqsup-test-{os.getpid()}-{next(counter)}"
    try:
        folder.mkdir()
    except OSError as fault:
        pytest.skip(f"no cgroup can be made here: {fault}")
    if not (folder / "cgroup.kill").exists():
        folder.rmdir()
        pytest.skip("cgroup.kill needs Linux 5.14")
    yield folder
    (folder / "cgroup.kill").write_text("1")
    wait_until(lambda: "populated 0" in (folder / "cgroup.events").read_text(), what="an empty cgroup")
    for leaf in (*folder.iterdir(), folder):
        if leaf.is_dir():
            leaf.rmdir()


@pytest.fixture
def start_in(group: Path, redis_server: LocalServer, namespace: str) -> Iterator[StartIn]:
    """Starts masters inside the cgroup from their first moment on."""
    daemons: list[Daemon] = []

    def start(*, wait: bool = True, **sections: Any) -> Daemon:
        daemon = Daemon(redis_server.url, namespace, app=["probe", "strays"], **sections)
        daemon.wrapper = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
        # Where tests run below systemd, this is not its cgroup any more.
        daemon.wrapper += ["env", "-u", "INVOCATION_ID"]
        daemons.append(daemon)
        return daemon.start() if wait else daemon.launch()

    yield start
    for daemon in daemons:
        daemon.stop()


def leaves(group: Path) -> list[Path]:
    """The leaves of workers."""
    return sorted(path for path in group.iterdir() if path.is_dir() and path.name != MASTERS_LEAF)


def test_each_worker_is_born_in_a_leaf_and_the_master_has_its_own(
    start_in: StartIn, group: Path, client: Client
) -> None:
    daemon = start_in(workers={"count": 2, "cgroups": "leaf"})

    assert daemon.pid in members(group / MASTERS_LEAF)
    assert members(group) == []
    assert {leaf.name: members(leaf) for leaf in leaves(group)} == {
        f"rqsup-test.{worker['id']}": [worker["pid"]] for worker in daemon.workers()
    }
    assert client.enqueue("strays.cgroup").result(30).strip().rpartition("/")[2] in {
        leaf.name for leaf in leaves(group)
    }


def test_a_killed_workers_strays_die_with_it_and_its_leaf_goes(
    start_in: StartIn, group: Path, client: Client, tmp_path: Path
) -> None:
    daemon = start_in(workers={"count": 1, "cgroups": "leaf", "crash_limit": 1, "kill_grace": 0.2, "job_timeout": 1})
    (before,) = leaves(group)
    job = client.enqueue("strays.leave", str(tmp_path), 0)
    stray = job.result(30)
    assert is_alive(stray)  # its worker goes on, so it may
    assert stray in members(before)

    client.enqueue("probe.hog")

    wait_until(lambda: not is_alive(stray), what="the stray's end")
    wait_until(lambda: before not in leaves(group), what="the old leaf to be removed")
    assert not (tmp_path / "signals").exists()
    wait_until(lambda: daemon.is_ready(1), what="another worker")
    assert len(leaves(group)) == 1


def test_a_worker_that_leaves_in_order_takes_its_strays_along(
    start_in: StartIn, group: Path, client: Client, tmp_path: Path
) -> None:
    daemon = start_in(workers={"count": 1, "cgroups": "leaf"})
    stray = client.enqueue("strays.leave", str(tmp_path), 0).result(30)

    daemon.ask("reload", wait="drained")

    wait_until(lambda: not is_alive(stray), what="the stray's end")
    wait_until(lambda: len(leaves(group)) == 1, what="one leaf")


def test_the_next_master_ends_what_a_killed_one_left(
    start_in: StartIn, group: Path, client: Client, tmp_path: Path
) -> None:
    first = start_in(workers={"count": 1, "cgroups": "leaf"})
    stray = client.enqueue("strays.leave", str(tmp_path), 0).result(30)
    (old,) = leaves(group)
    first.kill()
    assert is_alive(stray)  # no master, nobody to end it

    start_in(folder=first.folder, workers={"count": 1, "cgroups": "leaf"})

    wait_until(lambda: not is_alive(stray), what="the stray's end")
    wait_until(lambda: old not in leaves(group), what="the old leaf to be removed")


def test_without_leaves_a_stray_outlives_its_worker(start_in: StartIn, client: Client, tmp_path: Path) -> None:
    daemon = start_in(workers={"count": 1})
    stray = client.enqueue("strays.leave", str(tmp_path), 0).result(30)

    daemon.ask("reload", wait="drained")

    assert is_alive(stray)  # which is why there are leaves


def test_they_cannot_be_switched_on_in_a_running_master(start_in: StartIn) -> None:
    daemon = start_in(workers={"count": 1})
    daemon.settings["workers"]["cgroups"] = "leaf"
    daemon.write_config()

    done = subprocess.run(
        [sys.executable, "-m", "rqsup.supervisor", "reload", "-c", str(daemon.config)], capture_output=True, text=True, check=False
    )  # fmt: skip

    assert done.returncode == exits.FAILURE
    assert "workers.cgroups: cannot change in a running master" in done.stderr


def test_a_leaf_that_goes_away_refuses_the_worker_and_says_so(start_in: StartIn, group: Path) -> None:
    daemon = start_in(workers={"count": 1, "cgroups": "leaf", "restart_pause": 0.05})
    (group / "cgroup.max.descendants").write_text("2")

    daemon.ask("scale", workers=2)

    reason = wait_until(lambda: daemon.status()["degraded"], what="a degraded pool")
    assert "the kernel refuses a cgroup leaf" in str(reason)
    (group / "cgroup.max.descendants").write_text("max")
    wait_until(lambda: daemon.is_ready(2), what="the second worker")


def test_demanded_and_not_to_be_had_it_refuses_to_start(start_in: StartIn, group: Path) -> None:
    (group / "cgroup.max.descendants").write_text("0")

    daemon = start_in(wait=False, workers={"count": 1, "cgroups": "leaf"})

    assert daemon.wait() == exits.CONFIG
    (line,) = [line for line in daemon.log_text().splitlines() if "workers.cgroups" in line]
    assert line.strip().startswith("workers.cgroups: leaf is demanded, but the master cannot make itself a leaf in")
    assert line.endswith("or set it to shared")


def test_root_may_not_divide_what_systemd_did_not_delegate(group: Path) -> None:
    assert why_not(group, {}) == ""
    assert why_not(group, {"INVOCATION_ID": "1"}) == f"systemd has not delegated {group}"
    os.setxattr(group, "trusted.delegate", b"1")
    assert why_not(group, {"INVOCATION_ID": "1"}) == ""
    assert why_not(None, {}) == "this machine shows no cgroup v2"


def test_shared_is_the_default_and_asks_nothing_of_the_kernel() -> None:
    assert Settings().workers.cgroups == "shared"
    assert Leaves.open(Settings(workers=WorkerSettings(cgroups="shared"))) is None


@pytest.mark.parametrize(
    ("groups", "mounts", "expected"),
    [
        ("4:memory:/x\n0::/a", "29 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/a"),
        ("0::/docker/c/d", "29 1 0:26 /docker/c /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "/sys/fs/cgroup/d"),
        ("0::/", "9 1 0:2 / /mnt rw - ext4 /dev/a rw\n29 1 0:26 / /cg rw - cgroup2 cgroup2 rw", "/cg"),
        ("4:memory:/x", "29 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", None),
        ("0::/", "9 1 0:2 / /mnt rw - ext4 /dev/a rw", None),
    ],
)
def test_the_own_cgroup_is_found(groups: str, mounts: str, expected: str | None) -> None:
    found = own_cgroup(groups, mounts)

    assert (str(found) if found else None) == expected
