"""The house: three rooms, one direction, honest doors."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import rqsup

ROOT = Path(__file__).parents[2]
ROOMS = {"rqsup": ROOT / "rqsup", "rqsup.workers": ROOT / "workers", "rqsup.supervisor": ROOT / "supervisor"}
#: What a room must never import.
FORBIDDEN = {
    "rqsup": ("rqsup.workers", "rqsup.supervisor"),
    "rqsup.workers": ("rqsup.supervisor",),
    "rqsup.supervisor": (),
}


def modules(room: str) -> list[Path]:
    folder = ROOMS[room]
    linked = {folder / "workers", folder / "supervisor"} if room == "rqsup" else set[Path]()
    return [path for path in sorted(folder.rglob("*.py")) if not linked & set(path.parents)]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_is_below_it(room: str) -> None:
    assert modules(room)
    for path in modules(room):
        wrong = {
            name for name in imports(path) if (name + ".").startswith(tuple(f"{other}." for other in FORBIDDEN[room]))
        }
        assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_uses_the_top_level_names_of_the_folders(room: str) -> None:
    for path in modules(room):
        assert not {name for name in imports(path) if name.partition(".")[0] in {"workers", "supervisor"}}, path


@pytest.mark.parametrize("name", ["supervisor", "workers"])
def test_the_links_are_relative_and_lead_to_the_rooms(name: str) -> None:
    link = ROOT / "rqsup" / name

    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == ROOT / name


def test_the_public_door_shows_exactly_what_it_lists() -> None:
    tree = ast.parse((ROOT / "rqsup" / "__init__.py").read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rqsup.")
        for alias in node.names
    }

    assert set(rqsup.__all__) == imported
    assert all(hasattr(rqsup, name) for name in rqsup.__all__), "those that are loaded later, too"
    assert not hasattr(rqsup, "no_such_name")
    assert len(rqsup.__all__) == len(set(rqsup.__all__))
    assert all(hasattr(rqsup, name) for name in rqsup.__all__)


def test_the_examples_in_docstrings_hold() -> None:
    tried = 0
    for path in modules("rqsup"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        result = doctest.testmod(importlib.import_module(name))
        assert result.failed == 0, name
        tried += result.attempted
    assert tried >= 5
