"""Globs on relative paths, with the meaning of `PurePath.full_match` (which Python 3.11 lacks).

`*` and `?` stay inside one folder; `**` as a whole part stands for any number of folders; `[a-z]`
and `[!a-z]` are sets. Hidden names are like all others. Letters match in their own case only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


class GlobSet:
    """Several globs; a path matches when one of them does.

    Raises:
        ValueError: a glob can match no path; the message says what to write instead.
    """

    def __init__(self, globs: Iterable[str]) -> None:
        self.globs = tuple(globs)
        parts = [translate(glob) for glob in self.globs]
        # `(?!)` matches nothing: an empty set has no members.
        self._regex = re.compile("|".join(parts) or "(?!)", re.DOTALL)

    def matches(self, path: str) -> bool:
        """Whether this path, relative to the root, is in the set."""
        return self._regex.fullmatch(path) is not None

    def covers(self, folder: str) -> bool:
        """Whether everything below this folder is in the set, so that nobody needs to look into it."""
        # Only a closing `**` can match nothing after a slash, and it then matches all that may follow.
        return self._regex.fullmatch(f"{folder}/") is not None


def translate(glob: str) -> str:
    r"""The glob as a regular expression for `fullmatch` with DOTALL.

    >>> translate("**/*.txt")
    '(?:.+/)?[^/]*\\.txt'

    Raises:
        ValueError: no path relative to the root can match it.
    """
    parts = glob.split("/")
    if glob.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(
            f"glob {glob!r} can match no path: globs are relative to the root, without '.', '..' or empty parts; "
            "write 'folder/**' for all that is in a folder"
        )
    regex = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            regex += ".*" if last else "(?:.+/)?"
        else:
            regex += _translate_part(part) + ("" if last else "/")
    return regex


def _translate_part(part: str) -> str:
    if not part.strip("*"):
        return "[^/]+"
    part = re.sub(r"\*+", "*", part)  # a row of stars says no more than one, and costs backtracking
    regex, at = "", 0
    while at < len(part):
        char = part[at]
        closing = part.find("]", at + 3 if part[at + 1 : at + 2] == "!" else at + 2) if char == "[" else -1
        if closing > 0:
            regex += _translate_set(part[at + 1 : closing])
            at = closing
        else:
            regex += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        at += 1
    return regex


def _translate_set(inner: str) -> str:
    negated = inner.startswith("!")
    body = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner.removeprefix("!"))
    try:
        # A complement would match the slash too, and so lead out of its folder.
        regex = f"(?!/)[{'^' if negated else ''}{body}]"
        re.compile(regex)
    except re.error:
        raise ValueError(f"glob set [{inner}] is no range of characters: write it from low to high") from None
    return regex
