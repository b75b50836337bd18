"""`rqsup systemd install`: the service of a pool, written, verified and explained."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from rqsup.config import load
from rqsup.errors import ConfigError, InstallRefused
from rqsup.supervisor.cli import analyze
from rqsup.supervisor.cli.frame import json_option, print_json
from rqsup.supervisor.cli.units import UnitFile, Wish, drop_in_names, files_for, next_steps, remarks

#: Past tense of what is done with a file.
DONE = {"write": "written", "replace": "replaced", "unchanged": "unchanged", "keep": "kept as it is"}


@click.group(name="systemd")
def systemd_group() -> None:
    """Install rqsup as a service."""


@systemd_group.command()
@click.option(
    "--pool", required=True, metavar="NAME", help="Pool: the instance of rqsup@.service, and its file's name."
)
@click.option(
    "--drop-in", "drop_ins", multiple=True, type=click.Choice(drop_in_names()), help="Optional part; repeatable."
)
@click.option("--user", default="", metavar="USER", help="Run as this existing user (the drop-in app-user).")
@click.option("--program", metavar="PATH", help="The rqsup to start; default: this one.")
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), help="Write below this folder, as for an image."
)
@click.option("--force", is_flag=True, help="Also replace unit files that somebody changed.")
@click.option("--dry-run", is_flag=True, help="Verify, show what would change, and write nothing. Needs no root.")
@json_option
def install(
    pool: str, drop_ins: tuple[str, ...], user: str, program: str | None, root: Path, *,
    force: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the units of a pool, after systemd has verified them, and say what to do next.

    Exit status 1 when something hinders it, and then nothing was written. An existing configuration is kept.
    """
    wish = Wish(pool, _program(program), drop_ins, user, root.absolute())
    units = files_for(wish, analyze.version())
    _refuse_unknown_user(wish)
    actions = {unit: unit.action() for unit in units}
    faults, others, exposure = analyze.judge(units, pool)
    if faults:
        raise InstallRefused(f"systemd does not take the units as they are, so nothing was written:\n{faults}")
    notes = [*remarks(wish, sys.executable), *others, *_config_notes(wish)]
    if not dry_run:
        _refuse_to_overwrite(actions, force=force)
        _refuse_without_right(units)
        for unit, action in actions.items():
            if action in {"write", "replace"}:
                _write(unit)
        notes += [note for note in [analyze.reload_manager() if root == Path("/") else ""] if note]
    report = {
        "pool": pool, "program": wish.program, "written": not dry_run, "exposure": exposure, "notes": notes,
        "files": [{"path": str(unit.path), "action": action} for unit, action in actions.items()], "next": next_steps(wish),
    }  # fmt: skip
    if as_json:
        print_json(report)
    else:
        _show(report, actions, dry_run=dry_run)


def _program(given: str | None) -> str:
    started = Path(sys.argv[0])
    path = given or (str(started.absolute()) if started.name == "rqsup" and started.exists() else shutil.which("rqsup"))
    if not path or not path.startswith("/") or not os.access(path, os.X_OK):
        raise InstallRefused(
            f"{path or 'rqsup'} is no program that can be started: name it with --program /path/to/rqsup"
        )
    if any(letter.isspace() or letter in "%\"'\\$" for letter in path):
        raise InstallRefused(f"{path!r} has characters that a unit file cannot hold: link it to another path")
    return path


def _refuse_unknown_user(wish: Wish) -> None:
    if not wish.user:
        return
    try:
        pwd.getpwnam(wish.user)
    except KeyError:
        raise InstallRefused(f"there is no user {wish.user!r} here: make it first, or leave out --user") from None


def _config_notes(wish: Wish) -> list[str]:
    """Faults of a configuration that is there already: the service could not start with it."""
    path = wish.root / "etc/rqsup" / f"{wish.pool}.yaml"
    if not path.exists():
        return []
    try:
        found = load(path, environ={}).pool
    except ConfigError as fault:
        return [str(fault)]
    same = found == wish.pool
    return (
        []
        if same
        else [f"{path} says `pool: {found}`: it has to be {wish.pool}, by which the commands find the socket"]
    )


def _refuse_to_overwrite(actions: dict[UnitFile, str], *, force: bool) -> None:
    changed = [unit for unit, action in actions.items() if action == "replace"]
    if changed and not force:
        names = ", ".join(str(unit.path) for unit in changed)
        raise InstallRefused(
            f"{names} differ(s) from what would be written: look with --dry-run, then move the changes into a drop-in, "
            "or replace with --force"
        )


def _refuse_without_right(units: list[UnitFile]) -> None:
    for unit in units:
        folder = next(part for part in unit.path.parents if part.exists())
        if not os.access(folder, os.W_OK):
            raise InstallRefused(
                f"user {os.geteuid()} may not write to {folder}: run it with sudo, or look first with --dry-run"
            )


def _write(unit: UnitFile) -> None:
    unit.path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    # Beside it and then renamed: systemd never reads half a file.
    with tempfile.NamedTemporaryFile("w", dir=unit.path.parent, prefix=".", delete=False, encoding="utf-8") as file:
        file.write(unit.text)
    Path(file.name).chmod(0o644)
    Path(file.name).rename(unit.path)


def _show(report: dict[str, Any], actions: dict[UnitFile, str], *, dry_run: bool) -> None:
    for unit, action in actions.items():
        said = f"would {action}" if dry_run and action in {"write", "replace"} else DONE[action]
        click.echo(f"{said}: {unit.path}    # {unit.meaning}")
        if dry_run and action in {"write", "replace"}:
            click.echo(unit.diff())
    click.echo("systemd-analyze verify: no remarks")
    if report["exposure"] is not None:
        click.echo(f"systemd-analyze security: exposure {report['exposure']:.1f} (0 is best, 10 worst)")
    for note in report["notes"]:
        click.echo(f"note: {note}")
    click.echo("next:")
    for step in report["next"]:
        click.echo(f"  {step}")
