from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rqsup.errors import MasterUnreachable
from rqsup.supervisor.cli import master_process, operate
from rqsup.supervisor.cli.frame import ErrorGroup
from rqsup.supervisor.cli.master_process import MasterProcess, _is_master, reads_as_master
from rqsup.supervisor.ports import dial
from tests.supervisor.ports.other_user import as_nobody, needs_root
from tests.waiting import wait_until


@click.group(cls=ErrorGroup)
def rqsup() -> None:
    """The commands under test, in a group that treats errors as the real one does."""


for command in (
    operate.status, operate.reload, operate.upgrade, operate.stop, operate.quiet, operate.resume, operate.scale,
):  # fmt: skip
    rqsup.add_command(command)


class Master:
    """A scripted master in a process of its own, and the configuration that leads to it."""

    def __init__(self, folder: Path, manner: str) -> None:
        self.socket = folder / "control.sock"
        self.config = folder / "rqsup.yaml"
        self.config.write_text(f"pool: mail\ncontrol: {{socket: {self.socket}}}\n")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.supervisor.cli.scripted_master", str(self.socket), manner],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        assert self.heard() == "ready"

    @property
    def pid(self) -> str:
        return str(self.process.pid)

    def heard(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(rqsup, [str(argument) for argument in arguments])


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rqsup-test-"))
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def a_master(folder: Path, manner: str = "drained") -> Iterator[Master]:
    master = Master(folder, manner)
    try:
        yield master
    finally:
        master.process.kill()
        master.process.communicate()


@pytest.fixture
def master(folder: Path) -> Iterator[Master]:
    with a_master(folder) as master:
        yield master


def test_status_shows_the_pool_and_each_worker(master: Master) -> None:
    result = run("status", "-c", master.config)

    assert result.exit_code == 0
    assert "pool mail is running: 4/4 ready, 2 busy, generation 3, up 2h 3m" in result.output
    assert result.output.count("mail.send") == 2
    assert "hunter2" not in result.output


def test_status_as_json_is_one_object(master: Master) -> None:
    result = run("status", "--json", "-c", master.config)

    picture = json.loads(result.output)
    assert picture["pool"] == "mail"
    assert [worker["number"] for worker in picture["workers"]] == [1, 2, 3, 4]
    assert result.output.count("\n") == 1


def test_status_ends_with_1_when_the_pool_is_degraded(master: Master) -> None:
    assert run("quiet", "-c", master.config).exit_code == 0

    result = run("status", "-c", master.config)

    assert result.exit_code == 1
    assert "degraded: workers die before they are ready" in result.output


def test_status_ends_with_1_when_redis_is_away(master: Master) -> None:
    assert run("resume", "-c", master.config).exit_code == 0

    result = run("status", "-c", master.config)

    assert result.exit_code == 1
    assert "away (connection refused)" in " ".join(result.output.split())


def test_the_configuration_may_come_from_the_environment(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQSUP_CONFIG", str(master.config))

    assert run("scale", "7").output == "7 workers wanted\n"

    assert master.heard() == "scale {'workers': 7}"


def test_scale_reset_goes_back_to_the_configured_number(master: Master) -> None:
    assert run("scale", "--reset", "-c", master.config).output == "4 workers wanted, as configured\n"

    assert master.heard() == "scale {'reset': True}"


@pytest.mark.parametrize("arguments", [[], ["3", "--reset"]])
def test_scale_wants_either_a_number_or_reset(arguments: list[str]) -> None:
    result = run("scale", *arguments)

    assert result.exit_code == 2
    assert "Say either how many workers" in result.output


def test_reload_without_wait_returns_at_once(master: Master) -> None:
    result = run("reload", "-c", master.config)

    assert (result.exit_code, result.output) == (0, "reload is under way\n")
    assert master.heard() == "reload {}"


@pytest.mark.parametrize("option", ["--wait", "--wait=ready"])
def test_a_reload_that_is_waited_for_shows_its_progress(master: Master, option: str) -> None:
    result = run("reload", option, "--config", master.config)

    assert master.heard() == "reload {'wait': 'ready'}"
    assert (result.exit_code, result.output) == (0, "new code is imported\ngeneration 4 has taken over\n")


def test_a_reload_that_fails_says_why_and_with_which_code(master: Master) -> None:
    result = run("reload", "--wait=drained", "--config", master.config)

    assert master.heard() == "reload {'wait': 'drained'}"
    assert result.stdout == "new code is imported\n"
    assert "rqsup: error:" in result.stderr
    assert "app: shop.tasks: SyntaxError" in result.stderr
    assert result.exit_code == 78


def test_an_upgrade_shows_its_progress_and_what_it_came_to(master: Master) -> None:
    result = run("upgrade", "--wait", "-c", master.config)

    assert master.heard() == "upgrade {'wait': 'ready'}"
    told = "rqsup 0.2.0 has checked itself\nrqsup 0.2.0 runs the pool, before it was 0.1.0\n"
    assert (result.exit_code, result.output) == (0, told)


def test_an_upgrade_in_json_has_its_steps_too(master: Master) -> None:
    result = run("upgrade", "--json", "-c", master.config)

    answer = json.loads(result.output)
    assert answer["rqsup"] == "0.2.0"
    assert answer["steps"] == ["rqsup 0.2.0 has checked itself"]


def test_an_upgrade_that_fails_says_why(master: Master) -> None:
    result = run("upgrade", "--wait=drained", "-c", master.config)

    assert result.exit_code == 1
    assert "rqsup: error: the new program cannot take over, nothing changed: SyntaxError" in result.stderr


def test_an_upgrade_by_signal_cannot_be_waited_for(master: Master) -> None:
    result = run("upgrade", "--json", "--pid", master.pid)

    assert result.exit_code == 2
    assert "need the control socket" in result.output


@pytest.mark.parametrize(("options", "now"), [((), False), (("--now",), True)])
def test_stop_returns_when_the_master_is_gone(master: Master, options: tuple[str, ...], now: bool) -> None:
    result = run("stop", *options, "-c", master.config)

    assert master.heard() == f"stop {{'now': {now}}}"
    assert (result.exit_code, result.output) == (0, "draining 2 jobs\nstopped\n")
    assert master.process.wait(timeout=1) == 0


@pytest.mark.parametrize("manner", ["late", "refusing"])
def test_stop_ends_with_75_when_the_drain_deadline_passed(folder: Path, manner: str) -> None:
    with a_master(folder, manner) as master:
        result = run("stop", "-c", master.config)

        assert result.exit_code == 75
        assert "the drain deadline passed" in result.stderr
        assert master.process.wait(timeout=1) == 0


def test_stop_is_content_with_a_master_that_ends_without_an_answer(folder: Path) -> None:
    with a_master(folder, "silent") as master:
        assert run("stop", "-c", master.config).exit_code == 0


def test_stop_gives_up_waiting_at_its_timeout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_process, "REPORT_EVERY_S", 0.1)
    with a_master(folder, "stubborn") as master:
        result = run("stop", "--timeout", "0.25", "-c", master.config)

        assert result.exit_code == 1
        assert f"waiting for master {master.pid} to end" in result.stdout
        assert f"master {master.pid} still runs after 0.25 s" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [(("reload",), "SIGHUP"), (("upgrade",), "SIGUSR2"), (("quiet",), "SIGTSTP"), (("resume",), "SIGCONT")],
)
def test_without_a_socket_commands_go_by_signal(master: Master, arguments: tuple[str, ...], heard: str) -> None:
    result = run(*arguments, "--pid", master.pid)

    assert result.exit_code == 0
    assert f"sent {heard} to master {master.pid}" in result.output
    assert master.heard() == heard


@pytest.mark.parametrize(("options", "heard"), [((), "SIGTERM"), (("--now",), "SIGINT")])
def test_stop_by_signal_waits_too(master: Master, options: tuple[str, ...], heard: str) -> None:
    result = run("stop", *options, "--pid", master.pid)

    assert (result.exit_code, result.output) == (0, "stopped\n")
    assert master.heard() == heard
    assert master.process.wait(timeout=1) == 0


def test_a_signal_is_never_sent_to_a_stranger() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        result = run("stop", "--pid", str(stranger.pid))
        still_runs = stranger.poll() is None
        stranger.kill()

    assert result.exit_code == 1
    assert f"process {stranger.pid} is no rqsup master, so it gets no signal" in result.stderr
    assert still_runs
    assert f"there is no process {stranger.pid}" in run("stop", "--pid", str(stranger.pid)).stderr


@pytest.mark.parametrize(
    ("command_line", "is_master"),
    [
        (["rqsup: master [mail] 4/4 ready"], True),
        (["rqsup: worker 3 [mail.send]"], False),
        (["python3", "/usr/bin/rqsup", "run", "-c", "x"], True),
        (["/usr/bin/rqsup", "run"], True),
        (["rqsup", "status"], False),
        (["vim", "rqsup"], False),
        ([""], False),
    ],
)
def test_a_master_is_known_by_its_command_line(command_line: list[str], is_master: bool) -> None:
    assert reads_as_master([part.encode() for part in command_line]) == is_master


def test_a_process_that_has_ended_is_no_master() -> None:
    assert not _is_master(2**22 + 1)


@needs_root
def test_a_master_of_another_user_is_named(master: Master) -> None:
    with MasterProcess(int(master.pid)) as process:
        with pytest.raises(MasterUnreachable, match="belongs to another user"):
            as_nobody(lambda: process.send(signal.SIGHUP))

        master.process.kill()
        master.process.wait()
        with pytest.raises(MasterUnreachable, match="has just ended"):
            process.send(signal.SIGHUP)


def test_without_a_master_each_command_says_how_to_start_one(folder: Path) -> None:
    config = folder / "rqsup.yaml"
    config.write_text(f"control: {{socket: {folder}/control.sock}}\n")

    for arguments in (
        ["status"],
        ["status", "--json"],
        ["reload", "--wait"],
        ["upgrade"],
        ["stop"],
        ["quiet"],
        ["resume"],
        ["scale", "2"],
    ):
        result = run(*arguments, "-c", config)

        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith(f"rqsup: error: no master listens on {folder}/control.sock: start it with")
        assert result.stderr.count("\n") == 1


def test_a_stale_socket_is_told_from_a_missing_one(folder: Path) -> None:
    config = folder / "rqsup.yaml"
    config.write_text(f"control: {{socket: {folder}/control.sock}}\n")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/control.sock")

    result = run("stop", "-c", config)

    assert result.exit_code == 1
    assert "is gone: start it" in result.stderr


@pytest.mark.parametrize("number", ["0", "-3", "10000", "many", "2.5"])
def test_a_senseless_number_of_workers_is_a_usage_error(number: str) -> None:
    result = run("scale", "--", number)

    assert result.exit_code == 2
    assert "Invalid value for 'N'" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["reload", "--wait=soon"], ["reload", "--wait", "--pid", "1"], ["stop", "--timeout", "0"]]
)
def test_senseless_options_are_usage_errors(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_broken_configuration_ends_with_78(folder: Path) -> None:
    (folder / "rqsup.yaml").write_text("workers: {count: none}\n")

    result = run("status", "-c", folder / "rqsup.yaml")

    assert result.exit_code == 78
    assert "workers.count" in result.stderr


def test_a_status_of_another_version_is_refused_in_words(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "request", lambda *_, **__: {"version": 2})

    result = run("status", "-c", master.config)

    assert result.exit_code == 1
    assert "use its version" in result.stderr


def test_a_master_that_hangs_is_reported(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "PROMPT_TIMEOUT_S", 0.3)
    os.kill(master.process.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{master.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what="the master to be stopped")

    result = run("status", "-c", master.config)

    assert result.exit_code == 1
    assert "did not answer within 0.3 s: it hangs or is stopped" in result.stderr
