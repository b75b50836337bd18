"""docs/ops/ps.md shows what `ps` really shows: its lines have the shapes of those of a running pool."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rqsup import Client
from rqsup.store.server import LocalServer
from tests.system.daemon import Daemon
from tests.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "ops" / "ps.md").read_text()
#: What varies from process to process.
VARIABLE = (
    (r"\[\w+\]", "[POOL]"),
    (r"worker \d+", "worker N"),
    (r"gen \d+", "gen N"),
    (r"\d+/\d+ ready, \d+ busy", "N/N ready, N busy"),
    (r"[a-z]+\.[a-z]+ [0-9a-f]{8}…[0-9a-f]{4} \d+s", "TASK JOB AGE"),
)
ARGUMENT = "an-argument-of-a-job"


def shape(title: str) -> str:
    for pattern, name in VARIABLE:
        title = re.sub(pattern, name, title)
    return title.strip()


def titles(daemon: Daemon) -> list[str]:
    """What `ps` prints for the processes of a pool."""
    pids = ",".join(str(pid) for pid in daemon.tree())
    done = subprocess.run(["ps", "-ww", "-o", "args=", "-p", pids], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("rqsup:")]


@pytest.fixture
def daemon(redis_server: LocalServer, namespace: str) -> Iterator[Daemon]:
    daemon = Daemon(redis_server.url, namespace, workers={"count": 2})
    daemon.environ = {"GIVEN_FOR_TEST": "x" * 300, "NOTIFY_SOCKET": "@rqsup-test-nobody-listens"}
    daemon.start()
    yield daemon
    daemon.stop()


def test_the_page_shows_the_shapes_of_real_titles(daemon: Daemon, client: Client) -> None:
    documented = {shape(line) for line in re.findall(r"(rqsup: (?:master|zygote|worker) .*)", PAGE)}
    client.enqueue("probe.nap", 60)
    wait_until(lambda: any("probe.nap" in title for title in titles(daemon)), what="the job in a title")

    real = {shape(title) for title in titles(daemon)}

    assert real == {
        "rqsup: master [POOL] N/N ready, N busy, gen N", "rqsup: zygote [POOL] gen N",
        "rqsup: worker N [POOL] gen N, idle", "rqsup: worker N [POOL] gen N, TASK JOB AGE",
    }  # fmt: skip
    assert real <= documented
    daemon.ask("stop", now=True)


def test_a_title_never_shows_an_argument(daemon: Daemon, client: Client, tmp_path: Path) -> None:
    client.enqueue("probe.clean_up", str(tmp_path / ARGUMENT))

    wait_until(lambda: any("probe.clean_up" in title for title in titles(daemon)), what="the job in a title")

    for pid in daemon.tree():
        assert ARGUMENT not in " ".join(psutil.Process(pid).cmdline())
    daemon.ask("stop", now=True)


def test_proc_environ_stays_what_was_given(daemon: Daemon, client: Client) -> None:
    client.enqueue("probe.nap", 60)
    # Long titles would need the memory that the environment lies in.
    wait_until(lambda: any("probe.nap" in title for title in titles(daemon)), what="a long title")

    given = Path(f"/proc/{daemon.pid}/environ").read_bytes()
    assert b"GIVEN_FOR_TEST=" + b"x" * 300 in given.split(b"\0")
    # The zygote is started without the variables of the master's talk with systemd, its forks show the same.
    expected = {line for line in given.split(b"\0") if line and not line.startswith(b"NOTIFY_SOCKET=")}
    for pid in daemon.tree()[1:]:
        found = {line for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if line}
        assert expected <= found
        assert not [line for line in found if line.startswith(b"NOTIFY_SOCKET=")]
        assert {line.partition(b"=")[0] for line in found - expected} <= {b"SPT_NOENV", b"LC_CTYPE"}
    daemon.ask("stop", now=True)
