"""The walk finds every regular file once, stays inside its root, and holds no list of names."""

from __future__ import annotations

import logging
import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from rqsup.errors import PathRefused
from rqsup.globs import GlobSet
from rqsup.walk import LOGGED_REFUSALS, Walk, resolve_inside


def walk(root: Path, include: tuple[str, ...] = ("**",), exclude: tuple[str, ...] = ()) -> Walk:
    return Walk(root, include=GlobSet(include), exclude=GlobSet(exclude))


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_every_file_is_found_once_with_its_absolute_path(tmp_path: Path) -> None:
    make(tmp_path, "a", "b/c", "b/d/e", ".hidden/f", "name with\nbreak")

    found = sorted(walk(tmp_path), key=lambda one: one.relative)

    assert [one.relative for one in found] == [".hidden/f", "a", "b/c", "b/d/e", "name with\nbreak"]
    assert all(one.path == str(tmp_path.resolve() / one.relative) for one in found)


def test_globs_choose_files_and_excluded_folders_are_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b/c.txt", "b/d.md", ".git/e.txt", ".git/deep/f.txt")
    tree = walk(tmp_path, include=("**/*.txt",), exclude=("**/.git/**",))

    assert sorted(one.relative for one in tree) == ["a.txt", "b/c.txt"]
    assert tree.counts.excluded == 1  # d.md; what is in .git was never seen


def test_links_that_lead_out_are_refused_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "root/a", "root-sibling/secret")
    (tmp_path / "root/to-file").symlink_to("/etc/passwd")
    (tmp_path / "root/to-folder").symlink_to("../root-sibling")
    (tmp_path / "root/hop").symlink_to("to-folder/secret")
    tree = walk(tmp_path / "root")

    assert [one.relative for one in tree] == ["a"]
    assert tree.counts.refused == 3
    assert "leads out of" in caplog.text
    assert "/etc/passwd" in caplog.text


def test_links_that_stay_inside_add_nothing_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "a", "b/c")
    (tmp_path / "again").symlink_to("a")
    (tmp_path / "b/up").symlink_to("..")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "nowhere").symlink_to("missing")
    tree = walk(tmp_path)

    assert sorted(one.relative for one in tree) == ["a", "b/c"]
    assert (tree.counts.skipped, tree.counts.refused) == (4, 0)


def test_a_folder_replaced_by_a_link_while_walking_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "root/first", "outside/secret")
    (tmp_path / "root/sub").mkdir()
    tree = walk(tmp_path / "root")
    real_resolve = os.path.realpath(tmp_path / "root/sub")

    (tmp_path / "root/sub").rmdir()
    (tmp_path / "root/sub").symlink_to(tmp_path / "outside")

    assert [one.relative for one in tree] == ["first"]
    assert tree.counts.refused == 1
    with pytest.raises(PathRefused):
        resolve_inside(str(tmp_path.resolve() / "root"), real_resolve)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a\0b", "/root-sibling"])
def test_a_path_that_leaves_the_root_is_refused(path: str) -> None:
    with pytest.raises(PathRefused):
        resolve_inside("/root", path)


def test_a_path_inside_is_returned_without_detours(tmp_path: Path) -> None:
    root = str(tmp_path.resolve())

    assert resolve_inside(root, "a/../b") == f"{root}/b"
    assert resolve_inside(root, "") == root
    assert resolve_inside("/", "usr/..") == "/"


def test_pipes_sockets_and_devices_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        tree = walk(tmp_path)

        assert [one.relative for one in tree] == ["a"]
    assert tree.counts.skipped == 2


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff")).touch()
    tree = walk(tmp_path)

    assert [one.relative for one in tree] == ["a"]
    assert tree.counts.refused == 1
    assert "no UTF-8" in caplog.text


def test_an_unreadable_folder_is_counted_and_the_walk_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a", "closed/b", "broken/c", "d")
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("closed"):  # the tests may run as root, for whom no folder is closed
            raise PermissionError(13, "Permission denied", path)
        return BrokenEntries() if path.endswith("broken") else real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    tree = walk(tmp_path)

    assert sorted(one.relative for one in tree) == ["a", "d"]
    assert tree.counts.unreadable == 2
    assert "'closed/' cannot be read: Permission denied" in caplog.text


def test_a_root_that_vanished_is_counted(tmp_path: Path) -> None:
    tree = walk(tmp_path / "gone")

    assert list(tree) == []
    assert tree.counts.unreadable == 1


def test_an_entry_that_cannot_be_judged_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a")
    monkeypatch.setattr(GlobSet, "matches", _raise_io_error)
    tree = walk(tmp_path)

    assert list(tree) == []
    assert tree.counts.unreadable == 1


def test_a_tree_full_of_links_does_not_flood_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(LOGGED_REFUSALS + 10):
        (tmp_path / f"link{number}").symlink_to("/etc")
    tree = walk(tmp_path)

    with caplog.at_level(logging.WARNING):
        list(tree)

    assert tree.counts.refused == LOGGED_REFUSALS + 10
    assert len(caplog.records) == LOGGED_REFUSALS + 1


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    for number in range(20_000):
        (tmp_path / f"a-file-with-a-rather-long-name-{number:06d}").touch()
    tree = walk(tmp_path)

    tracemalloc.start()
    count = sum(1 for _ in tree)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 20_000
    assert peak < 200_000  # bytes; the names alone would be 1,700,000


def test_leaving_the_walk_early_closes_its_folders(tmp_path: Path) -> None:
    make(tmp_path, "a/b/c/d/e", "a/b/c/f", "a/b/g")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts open files
    entries = iter(walk(tmp_path))
    next(entries)

    del entries

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class BrokenEntries:
    """A folder on a disk that fails while it is listed."""

    def __next__(self) -> object:
        raise OSError(5, "Input/output error")

    def close(self) -> None:
        """Nothing is open."""


def _raise_io_error(self: GlobSet, path: str) -> bool:
    raise OSError(5, "Input/output error")
