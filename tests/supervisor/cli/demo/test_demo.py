"""`rqsup demo` as a person starts it: real processes, a real kill, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from rqsup.store.server import LocalServer
from tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "rqsup.supervisor", "demo"]
TIMEOUT_S = 120


def make(root: Path, count: int) -> Path:
    for number in range(count):
        folder = root / f"d{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(b"x" * number)
    return root


def environment(tmp: Path, **more: str) -> dict[str, str]:
    return (
        {key: value for key, value in os.environ.items() if not key.startswith("RQSUP_")} | {"TMPDIR": str(tmp)} | more
    )


def run(*arguments: str, tmp: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(tmp, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.slow)])
def test_every_file_ends_as_a_job_although_a_worker_was_killed(short_tmp: Path, tmp_path: Path, count: int) -> None:
    make(tmp_path, count)

    ended = run(str(tmp_path), "--json", tmp=short_tmp)

    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (result["files"], result["jobs"]) == (count, count + result["encore_jobs"])
    assert result["succeeded"] == result["jobs"]
    assert (result["failed"], result["dead"], result["lost"], result["faults"]) == (0, 0, 0, [])
    assert result["recovered"] >= 1
    assert result["recovery_ms"] > 0
    assert result["recovered_on"] not in {None, result["killed_worker"]}
    assert result["bytes"] == count * (count - 1) // 2
    assert [one["bytes"] for one in result["largest"]] == [count - 1, count - 2, count - 3, count - 4, count - 5]
    assert list(short_tmp.iterdir()) == []


def test_without_json_it_ends_with_tables_and_tells_of_the_kill(short_tmp: Path, tmp_path: Path) -> None:
    ended = run(str(make(tmp_path, 30)), tmp=short_tmp)

    assert ended.returncode == 0, ended.stderr
    assert "in the middle of a job: the job was back in its queue after" in ended.stdout
    assert [line.split() for line in ended.stdout.splitlines() if line.strip().startswith("lost")] == [["lost", "0"]]
    # A long path is folded inside its cell.
    assert str(tmp_path / "d1" / "f29") in "".join(ended.stdout.split())
    assert "and then ran on worker" in ended.stdout


def test_a_configured_redis_is_used_and_left_as_it_was(
    short_tmp: Path, tmp_path: Path, private_redis: LocalServer
) -> None:
    config = short_tmp / "own.yaml"
    config.write_text(f"redis: {{url: '{private_redis.url}'}}\n")
    with redis.Redis.from_url(private_redis.url) as client:
        client.set("mine", "kept")

        ended = run(str(make(tmp_path, 30)), "-c", str(config), "--json", tmp=short_tmp)

        assert ended.returncode == 0, ended.stderr
        assert "started a Redis server" not in ended.stdout
        assert client.keys("*") == [b"mine"]
        assert client.info("stats")["total_commands_processed"] > 100


def test_on_a_terminal_the_picture_shows_queues_workers_and_progress(short_tmp: Path, tmp_path: Path) -> None:
    make(tmp_path, 30)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, str(tmp_path)], env=environment(short_tmp, TERM="xterm", COLUMNS="80", LINES="24"), stdout=theirs
    ) as shown:
        os.close(theirs)
        text = _read_all(ours)

    assert shown.returncode == 0
    for word in (
        "rqsup demo",
        "ready",
        "scheduled",
        "current job",
        "idle",
        "30 of 30 done (100 %)",
        "jobs/s",
        "0 s left",
    ):
        assert word in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_all_that_was_started(short_tmp: Path, number: signal.Signals) -> None:
    with _running(short_tmp) as shown:
        family = psutil.Process(shown.pid).children(recursive=True)
        assert len(family) >= 6  # Redis, master, workers

        shown.send_signal(number)

        assert shown.wait(30) == 130
    wait_until(lambda: not any(_runs(process) for process in family), what="the end of every process")
    assert list(short_tmp.iterdir()) == []


def test_when_the_demo_itself_is_killed_nothing_runs_on(short_tmp: Path) -> None:
    with _running(short_tmp) as shown:
        family = psutil.Process(shown.pid).children(recursive=True)

        shown.kill()

    wait_until(lambda: not any(_runs(process) for process in family), what="the end of every process")


def test_a_master_that_ends_is_an_error_with_its_log(short_tmp: Path) -> None:
    with _running(short_tmp) as shown:
        master = next(child for child in psutil.Process(shown.pid).children() if "redis" not in child.name())

        master.kill()

        assert shown.wait(30) == 1
        assert shown.stderr is not None
        assert "the demo's master ended with status -9" in shown.stderr.read()
    assert [path.name for path in short_tmp.glob("rqsup-demo-*/master.log")] == ["master.log"]


def test_a_redis_that_goes_away_is_one_clear_line(short_tmp: Path) -> None:
    with _running(short_tmp) as shown:
        server = next(child for child in psutil.Process(shown.pid).children() if "redis" in child.name())

        server.kill()

        assert shown.wait(60) == 69
        assert shown.stderr is not None
        assert shown.stderr.read().startswith("rqsup: error: Redis went away in the middle of the demo: ")


def test_a_configured_redis_that_does_not_answer_is_one_clear_line(short_tmp: Path, tmp_path: Path) -> None:
    url = "redis://127.0.0.1:1"

    ended = run(str(make(tmp_path, 3)), tmp=short_tmp, RQSUP_REDIS__URL=url, RQSUP_REDIS__CONNECT_TRIES="1")

    assert ended.returncode == 69
    assert ended.stderr.startswith(f"rqsup: error: no Redis at {url} after 1 tries")
    assert len(ended.stderr.splitlines()) == 1
    assert list(short_tmp.iterdir()) == []


def test_a_directory_that_cannot_serve_is_one_clear_line(short_tmp: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    ends = {name: run(name, tmp=short_tmp) for name in ("/missing", "/etc/passwd", str(tmp_path / "empty"))}

    assert {name: ended.returncode for name, ended in ends.items()} == dict.fromkeys(ends, 2)
    assert "Directory '/missing' does not exist." in ends["/missing"].stderr
    assert "Directory '/etc/passwd' is a file." in ends["/etc/passwd"].stderr
    assert "holds no file that could be read: choose another DIR" in ends[str(tmp_path / "empty")].stderr
    assert list(short_tmp.iterdir()) == []


def _running(tmp: Path) -> subprocess.Popen[str]:
    """A demo on a large tree, whose workers run."""
    shown = subprocess.Popen(
        [*COMMAND, "/usr"], env=environment(tmp), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert shown.stdout is not None
    for line in shown.stdout:
        if " done" in line:
            break
    return shown


def _read_all(descriptor: int) -> str:
    chunks = []
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # how a pseudo-terminal tells that the other side is closed
            break
        if not chunk:
            break
        chunks.append(chunk)
    os.close(descriptor)
    return b"".join(chunks).decode(errors="replace")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
