"""`rqsup config check` and `show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from rqsup.supervisor import exits
from rqsup.supervisor.cli.config_commands import can_be_found, config_group
from rqsup.supervisor.cli.frame import ErrorGroup

GROUP = ErrorGroup("rqsup", commands={"config": config_group})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(GROUP, ["config", *arguments], env=dict(environ))


def test_check_says_that_a_file_is_fine(folder: Path) -> None:
    (folder / "c.yaml").write_text("pool: blue")

    result = run("check", "-c", "c.yaml")

    assert (result.exit_code, result.output) == (exits.OK, "c.yaml is fine\n")


def test_check_lists_all_faults_and_exits_with_78(folder: Path) -> None:
    (folder / "c.yaml").write_text("pool: a b\nworkers: {count: 0}")

    result = run("check", RQSUP_CONFIG="c.yaml")

    assert result.exit_code == exits.CONFIG
    assert "c.yaml has 2 fault(s):\n  pool: " in result.stderr
    assert "\n  workers.count: found 0" in result.stderr


def test_check_as_json_lists_the_faults_too(folder: Path) -> None:
    (folder / "c.yaml").write_text("workers: {count: 0}")

    result = run("check", "-c", "c.yaml", "--json")

    assert result.exit_code == exits.CONFIG
    assert json.loads(result.stdout) == {
        "origin": "c.yaml",
        "fine": False,
        "faults": ["workers.count: found 0; allowed is a whole number from 1 to 1000"],
    }
    assert json.loads(run("check", "--json").stdout) == {"origin": "environment", "fine": True, "faults": []}


def test_check_finds_modules_without_running_them(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("raise SystemExit('was run')")
    (folder / "shop" / "tasks.py").write_text("raise SystemExit('was run')")

    result = run("check", RQSUP_APP="shop.tasks, shop.mails, absent, json.decoder, shop.tasks.deeper")

    missing = [line.split("'")[1] for line in result.stderr.splitlines()[1:]]
    assert missing == ["shop.mails", "absent", "shop.tasks.deeper"]


def test_a_namespace_package_is_found(folder: Path) -> None:
    (folder / "plain").mkdir()
    (folder / "plain" / "tasks.py").write_text("")

    assert can_be_found("plain.tasks")


def test_check_finds_files_that_are_not_there(folder: Path) -> None:
    result = run("check", RQSUP_REDIS__PASSWORD_FILE="/absent/a", RQSUP_PRODUCER__ROOT="/absent/b")

    assert "redis.password_file: /absent/a cannot be read by this user" in result.stderr
    assert "producer.root: /absent/b is no directory" in result.stderr


def test_show_is_yaml_that_loads_and_marks_what_was_changed(folder: Path) -> None:
    result = run("show", RQSUP_WORKERS__QUEUES="mail,no", RQSUP_REDIS__URL="redis://:hunter2@db")

    marked = [line.split(":")[0].strip() for line in result.stdout.splitlines() if line.endswith("  # not the default")]
    assert marked == ["url", "queues"]
    assert yaml.safe_load(result.stdout)["workers"]["queues"] == ["mail", "no"]
    assert "hunter2" not in result.output


def test_show_as_json(folder: Path) -> None:
    shown = json.loads(run("show", "--json", RQSUP_POOL="blue", RQSUP_REDIS__URL="redis://:hunter2@db").stdout)

    assert shown["changed"] == ["pool", "redis.url"]
    assert shown["settings"]["redis"]["url"] == "redis://:***@db"


def test_show_of_a_broken_configuration_exits_with_78() -> None:
    assert run("show", RQSUP_POOL="a b").exit_code == exits.CONFIG
