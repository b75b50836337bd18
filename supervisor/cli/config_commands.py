"""`rqsup config check` and `rqsup config show`: look at the configuration before a master does."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import click

from rqsup.config import changed_keys, load, show
from rqsup.errors import ConfigError
from rqsup.settings import Settings
from rqsup.supervisor.cli.frame import config_option, json_option, print_json

#: Keys that name a file which has to be readable where rqsup runs.
FILE_KEYS = ("password_file", "tls_ca_file", "tls_cert_file", "tls_key_file")


@click.group("config")
def config_group() -> None:
    """Check the configuration, or show what it comes to."""


@config_group.command("check")
@config_option
@json_option
def check(config: str | None, as_json: bool) -> None:
    """Check the file and the environment; exit 78 and list every fault if there are any.

    Also looks for the modules of `app`, from this directory, without running them, and for the files
    that the settings name. It does not connect to Redis.
    """
    origin = config or "environment"
    try:
        faults = tuple(surroundings_faults(load(config)))
    except ConfigError as fault:
        faults = fault.faults
    if as_json:
        print_json({"origin": origin, "fine": not faults, "faults": faults})
    if faults:
        raise ConfigError(faults, origin)
    if not as_json:
        click.echo(f"{origin} is fine")


@config_group.command("show")
@config_option
@json_option
def show_settings(config: str | None, as_json: bool) -> None:
    """Show the settings in effect, as YAML; those that differ from their defaults are marked.

    Passwords are left out. With --json: {"settings": …, "changed": [keys]}.
    """
    settings = load(config)
    if as_json:
        print_json({"settings": show(settings), "changed": changed_keys(settings)})
    else:
        click.echo(as_yaml(show(settings), set(changed_keys(settings))), nl=False)


def surroundings_faults(settings: Settings) -> list[str]:
    """Faults that only show on the machine where rqsup runs: modules and files that are not there."""
    faults = [
        f"app: no module {module!r} is found from {Path.cwd()}; run rqsup where it can be imported, or install it"
        for module in settings.app
        if not can_be_found(module)
    ]
    files = [(key, getattr(settings.redis, key)) for key in FILE_KEYS]
    faults += [
        f"redis.{key}: {path} cannot be read by this user"
        for key, path in files
        if path and not os.access(path, os.R_OK)
    ]
    root = settings.producer.root
    return faults + ([f"producer.root: {root} is no directory"] if root and not Path(root).is_dir() else [])


def can_be_found(module: str) -> bool:
    """True when importing the module would find it. No part of it is run, not even a parent package."""
    # Workers import from the directory that the master was started in.
    places: Any = [str(Path.cwd()), *sys.path]
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, places) if places is not None else None
        if spec is None:
            return False
        places = spec.submodule_search_locations
    return True


def as_yaml(data: dict[str, Any], changed: set[str]) -> str:
    """The settings as YAML, one key per line, with a mark behind each key in `changed`."""
    lines: list[str] = []
    for key, value in data.items():
        if isinstance(value, dict):
            lines.append(f"{key}:\n")
            lines += [_line(f"  {inner}", part, f"{key}.{inner}" in changed) for inner, part in value.items()]
        else:
            lines.append(_line(key, value, key in changed))
    return "".join(lines)


def _line(key: str, value: Any, changed: bool) -> str:
    import yaml  # the master reads YAML only once, but imports this module for its command line

    text = (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )
    return f"{key}: {text}{'  # not the default' if changed else ''}\n"
