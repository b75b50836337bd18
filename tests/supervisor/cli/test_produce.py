"""`rqsup produce` and the role producer: what they send, say, and exit with."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rqsup import Client
from rqsup.errors import ConfigError
from rqsup.settings import ProducerSettings
from rqsup.supervisor.cli.produce import run_producer
from tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "rqsup.supervisor", "produce"]


@pytest.fixture
def config(client: Client, tmp_path: Path) -> Path:
    """A configuration for the test's own namespace."""
    path = tmp_path / "rqsup.yaml"
    path.write_text(f"redis: {{url: '{client.settings.redis.url}'}}\nnamespace: {client.settings.namespace}\n")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five files, one of them in a folder, and a link that leads out."""
    for name in ("a.txt", "b.txt", "c.md", "d.md", "sub/e.txt"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).touch()
    (tmp_path / "tree" / "out").symlink_to("/etc/passwd")
    return tmp_path / "tree"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60, env=_environment()
    )


def test_each_file_is_sent_and_the_summary_says_so(client: Client, config: Path, tree: Path) -> None:
    ended = run(tree, "-c", config, "--task", "files.digest", "--queue", "files", "--json")

    result = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 0, ended.stderr
    assert {key: result[key] for key in ("found", "sent", "refused", "interrupted")} == {
        "found": 5, "sent": 5, "refused": 1, "interrupted": False,
    }  # fmt: skip
    assert client.store.client.llen(client.keys.ready("files:normal")) == 5
    assert "leads out of" in ended.stderr


def test_globs_choose_what_is_sent(config: Path, tree: Path) -> None:
    ended = run(tree, "-c", config, "--task", "t", "--include", "**/*.txt", "--exclude", "sub/**")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("2 jobs sent for 2 files in ")
    assert "left out: 2 excluded, 1 refused" in ended.stdout


def test_ctrl_c_ends_with_the_summary(config: Path, tree: Path, client: Client) -> None:
    config.write_text(config.read_text() + "producer: {burst: 1}\n")
    command = [*COMMAND, str(tree), "-c", str(config), "--task", "t", "--rate", "0.1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment()) as producing:
        wait_until(lambda: client.store.client.llen(client.keys.ready("default:normal")) == 1, what="the first job")

        producing.send_signal(signal.SIGINT)

        assert producing.stdout is not None
        result = json.loads(producing.stdout.read().splitlines()[-1])
    assert (producing.returncode, result["sent"], result["interrupted"]) == (130, 1, True)


def test_on_a_terminal_progress_is_one_live_line(config: Path, tree: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, str(tree), "-c", str(config), "--task", "t"], stdout=subprocess.PIPE, stderr=theirs,
        env=_environment(TERM="xterm"),
    ) as producing:  # fmt: skip
        producing.wait(60)
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)

    assert "5 found  5 sent  1 refused" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/missing", "--task", "t"], 2, "Directory '/missing' does not exist."),
        (["/etc/passwd", "--task", "t"], 2, "Directory '/etc/passwd' is a file."),
        (["/etc"], 2, "name the task that each file is sent to: --task NAME"),
        (["/etc", "--task", "t", "--rate", "-1"], 2, "is not in the range x>=0"),
        (["/etc", "--task", "a b"], 78, "producer.task: task name 'a b' is not allowed"),
        (["/etc", "--task", "t", "--queue", "a b"], 78, "producer.queue: queue name 'a b' is not allowed"),
        (["/etc", "--task", "t", "--exclude", "/x"], 78, "producer.exclude: glob '/x' can match no path"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(
    config: Path, arguments: list[str], code: int, message: str
) -> None:
    ended = run(*arguments, "-c", config)

    assert ended.returncode == code
    assert message in ended.stderr


def test_an_unknown_level_in_the_configuration_is_refused(config: Path, tree: Path) -> None:
    config.write_text(config.read_text() + "producer: {levels: {'*.txt': urgent}}\n")

    ended = run(tree, "-c", config, "--task", "t")

    assert ended.returncode == 78
    assert "producer.levels: '*.txt' has the unknown priority 'urgent'" in ended.stderr


def test_the_role_producer_sends_the_tree_and_logs_it(client: Client, tree: Path) -> None:
    settings = msgspec.structs.replace(client.settings, producer=ProducerSettings(root=str(tree), task="t"))
    log = Log()

    progress = run_producer(settings, threading.Event(), log)

    assert progress.sent == 5
    assert log.events[0] == ("producer started", {"root": str(tree), "task": "t"})
    assert log.events[-1][0] == "producer is done"
    assert log.events[-1][1]["sent"] == 5


def test_the_role_producer_stops_when_told_to(client: Client, tree: Path) -> None:
    settings = msgspec.structs.replace(client.settings, producer=ProducerSettings(root=str(tree), task="t"))
    stop, log = threading.Event(), Log()
    stop.set()

    assert run_producer(settings, stop, log).sent == 0
    assert log.events[-1][0] == "producer stopped"


def test_the_role_producer_refuses_faulty_settings(client: Client) -> None:
    with pytest.raises(ConfigError, match=r"producer\.root: name the directory to walk"):
        run_producer(client.settings, threading.Event(), Log())


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))


def _environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RQSUP_")} | more
