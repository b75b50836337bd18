"""Walks a directory tree as a stream: memory grows with its depth, never with its files."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rqsup.errors import PathRefused
from rqsup.globs import GlobSet

_log = logging.getLogger("rqsup.producer")

#: Refusals of one walk that are logged one by one; a tree full of links must not flood the log.
LOGGED_REFUSALS = 50


class _Entries(Iterator[os.DirEntry[str]], Protocol):
    """What os.scandir returns."""

    def close(self) -> None: ...


#: The folders that the walk is in, outermost first: path relative to the root with a closing slash, and its entries.
_Stack = list[tuple[str, _Entries]]


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file inside the root."""

    #: Absolute, without any link in it.
    path: str
    #: The same, relative to the root: what globs are matched with.
    relative: str


@dataclass(slots=True)
class WalkCounts:
    """What the walk has met so far."""

    found: int = 0
    #: Files that the globs leave out.
    excluded: int = 0
    #: Paths that lead out of the root, and names that JSON cannot carry.
    refused: int = 0
    #: Folders and entries that this user may not read, or that vanished.
    unreadable: int = 0
    #: Links to a place inside the root, which is found by itself, and pipes, sockets, devices.
    skipped: int = 0


class Walk:
    """Every regular file below a root that the globs let through, in no particular order.

    Links are never followed: one that leads out of the root is refused, one that leads to a place
    inside adds nothing. What cannot be read is counted and logged, and the walk goes on.
    """

    def __init__(self, root: Path, *, include: GlobSet, exclude: GlobSet) -> None:
        self.root = os.path.realpath(root)
        self.counts = WalkCounts()
        self._include = include
        self._exclude = exclude
        self._logged = 0

    def __iter__(self) -> Iterator[Found]:
        folders: _Stack = []
        try:
            self._open(folders, "")
            while folders:
                prefix, entries = folders[-1]
                entry = self._next(prefix, entries)
                if entry is None:
                    folders.pop()[1].close()
                    continue
                found = self._judge(folders, entry, f"{prefix}{entry.name}")
                if found:
                    self.counts.found += 1
                    yield found
        finally:
            for _, entries in folders:
                entries.close()

    def _judge(self, folders: _Stack, entry: os.DirEntry[str], relative: str) -> Found | None:
        """Open a folder, return a file that is wanted, count everything else."""
        try:
            if entry.is_symlink():
                resolve_inside(self.root, entry.path)
                self.counts.skipped += 1
            elif entry.is_dir(follow_symlinks=False):
                if not self._exclude.covers(relative):
                    self._open(folders, relative + "/")
            elif not entry.is_file(follow_symlinks=False):
                self.counts.skipped += 1
            elif not self._include.matches(relative) or self._exclude.matches(relative):
                self.counts.excluded += 1
            else:
                return Found(_speakable(entry.path), relative)
        except PathRefused as fault:
            self.counts.refused += 1
            self._tell(str(fault))
        except OSError as fault:
            self._unreadable(relative, fault)
        return None

    def _open(self, folders: _Stack, prefix: str) -> None:
        # Resolved once per folder: somebody may have put a link in its place since it was listed.
        folder = resolve_inside(self.root, prefix)
        try:
            folders.append((prefix, os.scandir(folder)))
        except OSError as fault:
            self._unreadable(prefix or self.root, fault)

    def _next(self, prefix: str, entries: _Entries) -> os.DirEntry[str] | None:
        try:
            return next(entries, None)
        except OSError as fault:
            self._unreadable(prefix or self.root, fault)
            return None

    def _unreadable(self, place: str, fault: OSError) -> None:
        self.counts.unreadable += 1
        self._tell(f"{place!r} cannot be read: {fault.strerror}")

    def _tell(self, text: str) -> None:
        self._logged += 1
        if self._logged <= LOGGED_REFUSALS:
            _log.warning("left out: %s", text)
        elif self._logged == LOGGED_REFUSALS + 1:
            _log.warning("more paths are left out; from here on they are only counted")


def resolve_inside(root: str, path: str) -> str:
    """The path without links and `..`, when it is inside the root.

    Args:
        root: the root, resolved.

    Raises:
        PathRefused: it leads out of the root, or is no path at all.
    """
    try:
        resolved = os.path.realpath(Path(root, path))
    except ValueError as fault:
        raise PathRefused(f"{path!r} is no path: {fault}") from fault
    if resolved != root and not resolved.startswith(root.rstrip("/") + "/"):
        raise PathRefused(f"{path!r} leads out of {root}, to {resolved!r}")
    return resolved


def _speakable(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise PathRefused(f"{path!r} has bytes that are no UTF-8, which JSON cannot carry: rename it") from None
    return path
