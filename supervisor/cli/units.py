"""The shipped unit files, and what installing them for a pool means: which file, where, with what text. Pure."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rqsup.errors import InstallRefused

#: A user's name has at most 31 characters, and the service's is `rqsup-` and the pool's.
POOL = re.compile(r"[A-Za-z0-9_-]{1,25}")
UNITS = "etc/systemd/system"
SETTINGS = "etc/rqsup"
#: The program that the shipped unit starts.
PROGRAM = "/usr/bin/rqsup"
#: Added to a drop-in, where systemd knows it.
COMPANIONS = {"cgroups": "cgroups-subgroup"}
#: What a service with ProtectHome=yes does not see.
HIDDEN = ("/home/", "/root/", "/run/user/")

CONFIG = """\
# Pool {pool}: `rqsup config show` lists every key with its default; systemd/README.md explains the service.
pool: {pool}
# Modules to import in the workers; they declare the tasks.
app: []
redis: {{url: "redis://localhost:6379/0"}}
# Each pool of a machine needs a port of its own.
metrics: {{port: 9090}}
"""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """One file to write."""

    path: Path
    text: str
    #: What it is for, in a line.
    meaning: str
    #: The operator's own once it is there: never written over.
    kept: bool = False

    def action(self) -> str:
        """What installing it comes to: write, replace, unchanged or keep."""
        try:
            present = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return "write"
        if present == self.text:
            return "unchanged"
        return "keep" if self.kept else "replace"

    def diff(self) -> str:
        """From what is there to what will be."""
        present = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        lines = difflib.unified_diff(
            present.splitlines(keepends=True), self.text.splitlines(keepends=True), str(self.path), str(self.path)
        )
        return "".join(lines)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asks for."""

    pool: str
    program: str = PROGRAM
    drop_ins: tuple[str, ...] = ()
    #: Existing user that the service runs as; empty = one made for it.
    user: str = ""
    root: Path = Path("/")


def shipped(name: str) -> str:
    """The text of a shipped file."""
    return (files("rqsup") / "systemd" / name).read_text(encoding="utf-8")


def drop_in_names() -> list[str]:
    """The shipped drop-ins, without those that only accompany others."""
    names = sorted(path.name.removesuffix(".conf") for path in (files("rqsup") / "systemd" / "drop-ins").iterdir())
    return [name for name in names if name not in COMPANIONS.values()]


def files_for(wish: Wish, systemd: int) -> list[UnitFile]:
    """All files of this installation.

    Raises:
        InstallRefused: the pool's name does not fit, or a drop-in needs a later systemd.
    """
    if not POOL.fullmatch(wish.pool):
        raise InstallRefused(
            f"{wish.pool!r} is no name for a service's pool: use 1 to 25 of the characters A-Z a-z 0-9 _ -"
        )
    units = wish.root / UNITS
    unit = shipped("rqsup@.service").replace(PROGRAM, wish.program)
    return [
        UnitFile(units / "rqsup@.service", unit, "template of all pools; change it by drop-ins only"),
        UnitFile(units / "rqsup.target", shipped("rqsup.target"), "all pools together"),
        *(_drop_in(wish, name, systemd) for name in _with_companions(wish, systemd)),
        UnitFile(
            wish.root / SETTINGS / f"{wish.pool}.yaml", CONFIG.format(pool=wish.pool), "this pool's settings: yours",
            kept=True,
        ),
    ]  # fmt: skip


def next_steps(wish: Wish) -> list[str]:
    """The commands that follow, each with its reason."""
    pool, config = wish.pool, f"/{SETTINGS}/{wish.pool}.yaml"
    secret = (
        f"systemd-creds encrypt --name=redis-password FILE /{SETTINGS}/{pool}.redis-password.cred"
        if "creds-encrypted" in wish.drop_ins
        else f"install -m 600 FILE /{SETTINGS}/{pool}.redis-password"
    )
    return [
        f"editor {config}    # name your modules in `app`",
        f"{secret}    # only if Redis wants a password",
        f"rqsup config check -c {config}",
        f"systemctl enable --now rqsup@{pool} rqsup.target    # returns when the workers are ready",
        f"rqsup status -c {config}",
        f"journalctl -u rqsup@{pool} -f",
    ]


def remarks(wish: Wish, interpreter: str) -> list[str]:
    """What will not work as it is, though systemd cannot see it."""
    programs = {str(Path(path).resolve()) for path in (wish.program, interpreter)}
    return [
        f"{path} is below {hidden}, where the service may not look (ProtectHome=yes): install rqsup elsewhere, such as /opt"
        for path in sorted(programs) for hidden in HIDDEN if path.startswith(hidden)
    ]  # fmt: skip


def _with_companions(wish: Wish, systemd: int) -> list[str]:
    names = [*wish.drop_ins, *(["app-user"] if wish.user else [])]
    for name in wish.drop_ins:
        companion = COMPANIONS.get(name)
        if companion and systemd >= _needed(companion):
            names.append(companion)
    return sorted(set(names))


def _drop_in(wish: Wish, name: str, systemd: int) -> UnitFile:
    if systemd < _needed(name):
        raise InstallRefused(f"the drop-in {name} needs systemd {_needed(name)}, this is {systemd}: leave it out")
    text = shipped(f"drop-ins/{name}.conf")
    if name == "app-user" and wish.user:
        text = text.replace("User=app\n", f"User={wish.user}\n").replace("Group=app\n", "")
    folder = wish.root / UNITS / f"rqsup@{wish.pool}.service.d"
    return UnitFile(folder / f"{name}.conf", text, text.partition("\n")[0].removeprefix("# "))


def _needed(name: str) -> int:
    found = re.search(r"Needs systemd (\d+)", shipped(f"drop-ins/{name}.conf"))
    return int(found[1]) if found else 0
