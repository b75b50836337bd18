"""A fresh fork becomes a worker: real processes, looked at from inside by a job and from outside."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from rqsup import Client
from rqsup.store import scripts
from rqsup.store.server import LocalServer
from rqsup.workers.boot import IGNORED
from tests.waiting import wait_until


class SmallMaster:
    """A process that forked workers."""

    def __init__(self, url: str, client: Client, count: int) -> None:
        self.client = client
        environment = os.environ | {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1"}
        command = [sys.executable, "-m", "tests.workers.small_master", url, client.settings.namespace, str(count)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        told = self.read()
        self.pids: list[int] = told["pids"]
        assert told["ready"] == ["R"] * count
        details = {f"small.{number}": b"{}" for number in range(1, count + 1)}
        client.store.run(scripts.heartbeat(client.keys.root, ttl_ms=60_000, details=details))

    def read(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def facts(self) -> dict[str, Any]:
        """What a job sees in one of the workers."""
        return dict(self.client.enqueue("boot.facts").result(10))

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(redis_server: LocalServer, client: Client) -> Iterator[Any]:
    """Starts small masters and ends them."""
    masters: list[SmallMaster] = []

    def begin(count: int = 1) -> SmallMaster:
        masters.append(SmallMaster(redis_server.url, client, count))
        return masters[-1]

    yield begin
    for master in masters:
        master.end()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_is_a_clean_process_of_its_own(start: Any) -> None:
    master = start()

    facts = master.facts()

    assert facts["pid"] == facts["group"] == facts["session"] == master.pids[0]
    assert facts["ppid"] == master.process.pid
    assert facts["death_signal"] == signal.SIGKILL
    assert facts["variables"] == []
    assert facts["faulthandler"]
    assert facts["gc"]
    assert facts["blocked"] == 0
    assert facts["threads"] == 1
    assert facts["oom_score_adj"] in {"300", open("/proc/self/oom_score_adj").read().strip()}  # noqa: PTH123, SIM115


def test_a_program_started_by_a_job_can_be_ended_by_signals(start: Any) -> None:
    assert start().facts()["ignored_by_programs"] == 0


def test_no_signal_from_outside_ends_or_stops_a_worker(start: Any) -> None:
    master = start()

    for number in (*IGNORED, signal.SIGUSR2):
        os.kill(master.pids[0], number)

    assert master.facts()["pid"] == master.pids[0]


def test_two_workers_draw_different_random_numbers(start: Any) -> None:
    master = start(2)

    drawn: dict[int, float] = {}
    while len(drawn) < 2:
        facts = master.facts()
        drawn.setdefault(facts["pid"], facts["random"])

    assert len(set(drawn.values())) == 2


def test_no_worker_outlives_its_master(start: Any) -> None:
    master = start(2)

    master.process.kill()

    for pid in master.pids:
        wait_until(functools.partial(is_gone, pid), what="the end of the worker")


def test_a_worker_ends_in_order_when_its_master_closes_the_channel(start: Any) -> None:
    master = start()
    assert master.process.stdin
    master.process.stdin.write("close\n")
    master.process.stdin.flush()

    assert master.read() == [0]


def test_closed_streams_do_not_change_how_a_worker_ends(start: Any, client: Client) -> None:
    master = start()
    client.enqueue("boot.close_streams").result(10)
    assert master.process.stdin
    master.process.stdin.write("close\n")
    master.process.stdin.flush()

    assert master.read() == [0]


def test_a_worker_whose_own_code_fails_says_so_and_ends_with_a_status_of_its_own() -> None:
    program = (
        "import os, mmap; from rqsup.config import Settings; from rqsup.workers.assignment import Assignment\n"
        "from rqsup.workers.boot import Descriptors, run_worker\n"
        "child = os.fork()\n"
        "if child == 0: run_worker(Assignment(1, 'w', 0, 1, os.getppid()), Settings(), mmap.mmap(-1, 4096), Descriptors(99))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.splitlines()[-1] == "70"
    assert "worker failed" in ended.stdout + ended.stderr


def test_a_worker_whose_master_is_not_its_parent_ends_at_once() -> None:
    program = (
        "import os; from rqsup.workers.kernel import die_with_parent\n"
        "child = os.fork()\n"
        "if child == 0: die_with_parent(1); os._exit(9)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout == "0\n"
