"""What README and docs show is true: examples run, commands exist, settings load, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import yaml

from rqsup.config import load
from rqsup.store.server import LocalServer
from rqsup.supervisor.cli import main
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("systemd/*.md")]
)
FENCE = re.compile(r"(?:`([\w./-]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)
#: The address that examples use; the test's own server stands in for it.
EXAMPLE_URL = "redis://localhost:6379/0"


def blocks(path: Path, *languages: str) -> list[tuple[str, str]]:
    """(name of the file that it stands for or '', text) of each example in these languages."""
    return [(name, text) for name, language, text in FENCE.findall(path.read_text()) if language in languages]


def all_blocks(*languages: str) -> list[object]:
    found = [(path, *block) for path in DOCUMENTS for block in blocks(path, *languages)]
    return [
        pytest.param(name, text, id=f"{path.relative_to(ROOT)}-{number}")
        for number, (path, name, text) in enumerate(found)
    ]


@contextmanager
def master(folder: Path, command: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A master, started as the documents say; it is gone afterwards."""
    with (folder / "master.log").open("wb") as log:
        process = subprocess.Popen(shlex.split(command), cwd=folder, env=environ, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()
            sys.stdout.write((folder / "master.log").read_text())


def environment(folder: Path) -> dict[str, str]:
    # The scripts of the environment that runs the tests; ports and sockets that no other test uses.
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RQSUP_METRICS__PORT": "0",
        "RQSUP_CONTROL__SOCKET": str(folder / "c.sock"),
    }


def test_the_first_task_of_the_readme_runs_end_to_end(private_redis: LocalServer, tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    for name, text in blocks(readme, "python", "yaml"):
        (tmp_path / name).write_text(text.replace(EXAMPLE_URL, private_redis.url))
    start, send = next(text for _, text in blocks(readme, "bash") if text.startswith("rqsup run")).splitlines()
    environ = environment(Path(private_redis.url.removeprefix("unix://")).parent)

    with master(tmp_path, start, environ) as process:
        wait_until(
            lambda: process.poll() is None and "ready" in (tmp_path / "master.log").read_text(), 30, "a ready master"
        )
        sent = subprocess.run(
            shlex.split(send), cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30, check=False
        )

    ((_, shown),) = blocks(readme, "text")
    assert (sent.stdout, sent.returncode) == (shown, 0), sent.stderr
    assert process.returncode == 0


@pytest.mark.parametrize(("name", "text"), all_blocks("python"))
def test_examples_are_python(name: str, text: str) -> None:
    compile(text, name or "example", "exec")


@pytest.mark.parametrize(("name", "text"), all_blocks("yaml"))
def test_configurations_load(name: str, text: str, tmp_path: Path) -> None:
    if name and not name.endswith("rqsup.yaml"):
        pytest.skip("not a configuration of rqsup")
    assert yaml.safe_load(text)
    (tmp_path / "example.yaml").write_text(text)

    load(tmp_path / "example.yaml", {})


@pytest.mark.parametrize(("name", "text"), all_blocks("bash"))
def test_commands_exist_with_their_options(name: str, text: str) -> None:
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] != "rqsup" or words == ["rqsup", "--version"]:
            continue
        resolve(words[1:])


def resolve(words: list[str]) -> None:
    """Find the command and parse its options; click raises a usage error if there is no such thing."""
    command: click.Command = main
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"no command {name!r}"
        command = found
    command.make_context(command.name, words, resilient_parsing=False)


def test_the_readme_shows_every_command() -> None:
    lines = [line for _, text in blocks(ROOT / "README.md", "bash") for line in text.splitlines()]

    assert [
        name for name in leaves(main, "rqsup") if not any(f"{line} ".startswith(f"{name} ") for line in lines)
    ] == []


def leaves(command: click.Command, name: str) -> list[str]:
    """The full names of all commands below this one."""
    if not isinstance(command, click.Group):
        return [name]
    return [leaf for part, below in command.commands.items() for leaf in leaves(below, f"{name} {part}")]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = {
        target
        for path in DOCUMENTS
        for target in re.findall(r"(?:`|^|\s)make ([a-z]+)\b", path.read_text(), re.MULTILINE)
    }
    assert {"run", "test", "check"} <= named
    assert named & {"run", "test", "check", "coverage", "lint", "types", "clean"} <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())

    gone = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert gone == []
