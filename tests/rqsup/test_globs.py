"""Globs mean what `PurePath.full_match` of Python 3.13 means."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.globs import GlobSet, translate


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**", ["a", "a/b", ".hidden", "a/.b/c"], []),
        ("*", ["a", ".hidden"], ["a/b"]),
        ("*.txt", ["a.txt", ".txt"], ["a/b.txt", "a.txt~"]),
        ("**/*.txt", ["a.txt", "a/b.txt", "a/b/c.txt"], ["a.txt/b"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a", "ab/c"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/bz", "a/z/y"]),
        ("**/.git/**", [".git/config", "x/.git/a/b"], [".gitignore", "x.git/a"]),
        ("a?c", ["abc", "a.c"], ["ac", "a/c"]),
        ("[a-c]1", ["a1", "c1"], ["d1", "/1"]),
        ("[!a]1", ["b1"], ["a1", "/1"]),
        ("[]]", ["]"], ["["]),
        ("[!]]x", ["ax"], ["]x"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("a[b", ["a[b"], ["ab"]),
        ("a**b", ["ab", "axxb"], ["a/b"]),
        ("***", ["a"], ["a/b"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+(c)"]),
        ("line\nbreak", ["line\nbreak"], ["line"]),
    ],
)
def test_a_glob_matches_the_whole_relative_path(glob: str, yes: list[str], no: list[str]) -> None:
    globs = GlobSet([glob])

    assert [path for path in yes if not globs.matches(path)] == []
    assert [path for path in no if globs.matches(path)] == []


@pytest.mark.parametrize("glob", ["/a", "", "a/", "a//b", "../a", "a/./b"])
def test_a_glob_that_can_match_no_path_is_refused_with_advice(glob: str) -> None:
    with pytest.raises(ValueError, match=r"can match no path: .* write 'folder/\*\*'"):
        translate(glob)


def test_a_range_from_high_to_low_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[z-a\] is no range"):
        translate("[z-a]")


def test_an_empty_set_has_no_members() -> None:
    assert not GlobSet([]).matches("a")
    assert not GlobSet([]).covers("a")


def test_a_set_matches_when_one_of_its_globs_does() -> None:
    globs = GlobSet(["*.txt", "b/**"])

    assert [path for path in ("a.txt", "b/c", "c") if globs.matches(path)] == ["a.txt", "b/c"]


@pytest.mark.parametrize(
    ("glob", "covered"),
    [("a/**", True), ("**/a/**", True), ("**", True), ("a/*", False), ("a", False), ("**/*", False), ("a/***", False)],
)
def test_a_folder_is_covered_only_when_all_below_it_is(glob: str, covered: bool) -> None:
    assert GlobSet([glob]).covers("a") is covered


@given(st.text("ab*?.", min_size=1, max_size=8), st.text("ab.", min_size=1, max_size=8))
def test_inside_one_folder_a_glob_means_what_fnmatch_means(glob: str, name: str) -> None:
    if set(glob) == {"."}:
        return

    expected = re.fullmatch(fnmatch.translate(glob), name) is not None

    assert GlobSet([glob]).matches(name) is expected
