"""The example files say what the code does: every key, its default, and a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from rqsup.config import flatten, load
from rqsup.settings import Settings

FOLDER = Path(__file__).parents[2] / "config"
EXAMPLE = FOLDER / "rqsup.example.yaml"


def defaults() -> dict[str, Any]:
    return flatten(msgspec.to_builtins(Settings()))


def test_the_example_has_every_key_and_no_other() -> None:
    assert list(flatten(yaml.safe_load(EXAMPLE.read_text()))) == list(defaults())


def test_the_example_shows_every_default() -> None:
    shown = flatten(yaml.safe_load(EXAMPLE.read_text()))

    assert {key: (type(value), value) for key, value in shown.items()} == {
        key: (type(value), value) for key, value in defaults().items()
    }


def test_the_example_comments_each_key() -> None:
    lines = EXAMPLE.read_text().splitlines()

    keys = [number for number, line in enumerate(lines) if re.match(r"\s*\w+: .", line)]
    bare = [lines[number] for number in keys if not lines[number - 1].strip().startswith("# ")]
    assert len(keys) == len(defaults())
    assert bare == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_each_file_in_config_loads_without_fault(path: Path) -> None:
    load(path, {})
