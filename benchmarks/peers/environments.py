"""An environment for each peer, below `.bench/`: made once, made anew when its requirements change."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.drain import ROOT
from benchmarks.figures import Tell
from benchmarks.peers.peer import Peer

#: Everything that this harness keeps, ignored by git.
CACHE = ROOT / ".bench"
#: Written when an environment is whole; it tells what is in it.
STAMP = "requirements"
#: Newest Python that is looked for.
NEWEST = 14


class NoEnvironment(Exception):
    """A peer cannot be installed here; the message says why."""


def folder_of(peer: Peer) -> Path:
    """Where its environment is, or will be."""
    return CACHE / "envs" / peer.place


def is_installed(peer: Peer) -> bool:
    """True when its environment holds exactly what it asks for."""
    stamp = folder_of(peer) / STAMP
    return stamp.exists() and stamp.read_text() == _stamp(peer)


def install(peer: Peer, tell: Tell) -> Path:
    """Its environment, made now if need be.

    Raises:
        NoEnvironment: there is no Python for it, or pip failed.
    """
    folder = folder_of(peer)
    if not is_installed(peer):
        python = find_python(peer.python)
        tell(f"{peer.name}: installing {' '.join(peer.requirements)} for {python}")
        _run([python, "-m", "venv", "--clear", str(folder)])
        _run(
            [
                str(folder / "bin/python"),
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                *peer.requirements,
            ]
        )
        (folder / STAMP).write_text(_stamp(peer))
    return folder


def find_python(first: tuple[int, int]) -> str:
    """A Python of this version or a later one that really runs: a pyenv shim may stand for one that is not active.

    Raises:
        NoEnvironment: there is none.
    """
    for candidate in _candidates(first):
        code = f"import ensurepip, sys; print(sys.executable); sys.exit(sys.version_info < {first})"
        try:
            ended = subprocess.run([candidate, "-c", code], check=False, capture_output=True, text=True)
        except OSError:
            continue
        if ended.returncode == 0:
            return ended.stdout.strip()
    raise NoEnvironment(
        f"no Python {first[0]}.{first[1]} or later was found: install one, or leave this peer out by --peers"
    )


def _candidates(first: tuple[int, int]) -> Iterator[str]:
    if sys.version_info >= first:
        yield sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(first[1], NEWEST + 1):
        yield f"python{first[0]}.{minor}"
        yield from map(str, sorted(pyenv.glob(f"versions/{first[0]}.{minor}.*/bin/python")))


def _stamp(peer: Peer) -> str:
    return "".join(f"{line}\n" for line in peer.requirements)


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode:
        raise NoEnvironment(f"{' '.join(command)} failed: {ended.stderr.strip()[-500:]}")
