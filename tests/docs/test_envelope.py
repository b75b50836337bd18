"""docs/envelope.md: what another language does, done here step by step."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from rqsup import Client, JobState
from rqsup.envelope import NAME, VERSION, Envelope
from rqsup.job import LEVEL_LABELS

PAGE = (Path(__file__).parents[2] / "docs" / "envelope.md").read_text()
EXAMPLE_ID = "0190b4c2-7f3e-7c1a-9b5e-2f4a6d8c0e11"


def test_the_table_lists_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (`[^|]+`|required) \|", PAGE, re.MULTILINE)
    listed = {name: "required" if default == "required" else json.loads(default.strip("`")) for name, default in rows}

    assert listed == {
        field.name: field.default_factory() if field.default_factory is not msgspec.NODEFAULT
        else "required" if field.default is msgspec.NODEFAULT else field.default
        for field in msgspec.structs.fields(Envelope)
    }  # fmt: skip
    assert listed["v"] == VERSION


def test_levels_and_alphabet_are_those_of_the_code() -> None:
    [row] = re.findall(r"^\| `level` .+", PAGE, re.MULTILINE)

    assert set(re.findall(r"`(\w+)`", row)) - {"level"} == set(LEVEL_LABELS)
    assert "`A-Z a-z 0-9 _ . : -`" in PAGE
    assert all(NAME.fullmatch(char) for char in "AZaz09_.:-")


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="the page uses redis-cli, which is not installed")
def test_the_commands_of_the_page_enqueue_a_job(client: Client, tmp_path: Path) -> None:
    commands = "\n".join(re.findall(r"```sh\n(.+?)```", PAGE, re.DOTALL))
    commands = commands.replace("rqsup:{default}:", client.keys.root).replace("python -c", f"{sys.executable} -c")
    socket = client.settings.redis.url.removeprefix("unix://")
    cli = tmp_path / "redis-cli"
    cli.write_text(f'#!/bin/sh\nexec {shutil.which("redis-cli")} -s {socket} "$@"\n')
    cli.chmod(0o700)

    done = subprocess.run(
        ["sh", "-eu", "-c", commands], cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip

    assert done.stdout.split()[-1] == "ready"
    record = client.record(EXAMPLE_ID)
    assert (record.state, record.task, record.queue, record.level) == (JobState.READY, "mail.send", "mail", "high")


def test_the_arguments_of_the_page_are_those_of_the_script() -> None:
    rows = re.findall(r"^\| (\d) \| ", PAGE, re.MULTILINE)
    header = (Path(__file__).parents[2] / "rqsup" / "store" / "lua" / "enqueue.lua").read_text()

    assert rows == re.findall(r"^-- ARGV\[(\d)\]", header, re.MULTILINE)
