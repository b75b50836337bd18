"""The configuration: one frozen record, read and checked once, then handed down.

Every key has a default that works against localhost. A file in YAML comes first, environment
variables `RQSUP_<SECTION>__<KEY>` override it. All faults are reported together. Nothing else in
rqsup reads the environment for settings. `config/rqsup.example.yaml` shows every key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from rqsup.config_checks import cross_check
from rqsup.config_source import build, override, read_yaml
from rqsup.errors import ConfigError
from rqsup.redact import redact_url
from rqsup.settings import ControlSettings, Settings

#: Name of the systemd credential that holds the Redis password.
CREDENTIAL = "redis-password"


def load(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read, override and check the configuration.

    Args:
        path: YAML file; None = defaults and environment only.
        environ: environment variables; default the process's own.

    Raises:
        ConfigError: with every fault that was found.
    """
    environ = os.environ if environ is None else environ
    faults: list[str] = []
    data = read_yaml(Path(path), faults) if path else {}
    override(data, environ, faults)
    settings: Settings = build(Settings, data, "", faults)
    settings = _with_socket(_with_credential(settings, environ, faults), environ)
    # Also after faults: a key with a fault holds its default here, which has none.
    faults += cross_check(settings)
    if faults:
        raise ConfigError(faults, origin=str(path) if path else "environment")
    return settings


def _with_credential(settings: Settings, environ: Mapping[str, str], faults: list[str]) -> Settings:
    """Prefer the systemd credential to `password_file`: it is what the unit was given."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(folder) / CREDENTIAL
    if not folder:
        return settings
    try:
        # The unit's default credential is a lone "-": no password.
        if not path.is_file() or path.read_text(encoding="utf-8").strip() in {"", "-"}:
            return settings
    except (OSError, UnicodeDecodeError) as fault:
        faults.append(f"systemd credential {CREDENTIAL}: cannot be read: {fault}")
    return msgspec.structs.replace(settings, redis=msgspec.structs.replace(settings.redis, password_file=str(path)))


def _with_socket(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Settle the control socket's path, alike for the master and for the commands that look for it."""
    if settings.control.socket:
        return settings
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or _folder(settings.pool, environ)
    return msgspec.structs.replace(settings, control=ControlSettings(socket=f"{folder}/control.sock"))


def _folder(pool: str, environ: Mapping[str, str]) -> str:
    system = Path("/run/rqsup") / pool
    user = os.geteuid()
    # A command run as the service's own user finds the service's folder, though systemd does not tell it.
    if user == 0 or _owner(system) == user:
        return str(system)
    home = environ.get("XDG_RUNTIME_DIR") or f"/tmp/rqsup-{user}"  # noqa: S108 - made 0700, owner checked
    return f"{home}/rqsup/{pool}"


def _owner(folder: Path) -> int | None:
    try:
        return folder.stat().st_uid
    except OSError:  # it is not there, or lies in a folder of another user's, as systemd and root make them
        return None


def show(settings: Settings) -> dict[str, Any]:
    """The settings as plain data, with secrets left out."""
    data: dict[str, Any] = msgspec.to_builtins(settings)
    data["redis"]["url"] = redact_url(settings.redis.url)
    return data


def changed_keys(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """Dotted names of the keys that differ from their defaults, in the order of the example file."""
    environ = os.environ if environ is None else environ
    # The socket's default follows from the pool; it is no change of its own.
    standard = flatten(msgspec.to_builtins(_with_socket(Settings(pool=settings.pool), environ)))
    standard["pool"] = Settings().pool
    return [key for key, value in flatten(msgspec.to_builtins(settings)).items() if value != standard[key]]


def flatten(data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, from the plain data of `show`."""
    sections = {key for key, value in msgspec.to_builtins(Settings()).items() if isinstance(value, dict)}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if key in sections:
            flat |= {f"{key}.{inner}": part for inner, part in value.items()}
        else:
            flat[key] = value
    return flat
