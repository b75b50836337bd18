"""Reads and checks the configuration in a throw-away process, before a running master trusts it.

A file that never ends, fills the memory or hangs in a network mount is then that process's problem, and
the rules applied are those of the rqsup on disk, which the next workers will run.
"""

from __future__ import annotations

import os
import sys

import msgspec

from rqsup.config import load
from rqsup.errors import ConfigError
from rqsup.settings import Settings
from rqsup.supervisor.aside import run_aside


class Valid(msgspec.Struct, frozen=True, tag=True):
    """The configuration has no fault."""

    settings: Settings


class Invalid(msgspec.Struct, frozen=True, tag=True):
    """The configuration has these faults."""

    faults: list[str]
    origin: str


_decoder: msgspec.json.Decoder[Valid | Invalid] = msgspec.json.Decoder(Valid | Invalid)


async def validate(path: str | None, *, timeout_s: float, own: set[int]) -> Settings:
    """The settings in this file and the environment, checked in another process.

    Args:
        path: YAML file; None = defaults and environment only.
        timeout_s: seconds after which that process is killed.
        own: pids that nobody else reaps; holds the process's while it lives.

    Raises:
        ConfigError: the configuration has faults, or could not be checked at all.
    """
    origin = path or "environment"
    command = [sys.executable, "-m", "rqsup.supervisor.validation", *([path] if path else [])]
    with os.fdopen(os.memfd_create("rqsup-validation"), "rb") as said:
        status = await run_aside(command, own=own, timeout_s=timeout_s, output=said.fileno())
        said.seek(0)
        output = said.read()
    if status is None:
        raise ConfigError([f"could not be read within {timeout_s:g} s (workers.boot_timeout)"], origin)
    try:
        verdict = _decoder.decode(output)
    except msgspec.ValidationError:
        raise ConfigError(
            ["uses settings of the rqsup on disk, which is another version than this one: run `rqsup upgrade`"], origin
        ) from None
    except msgspec.DecodeError:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise ConfigError(
            [f"could not be checked: the process for it {how}; try `rqsup config check`"], origin
        ) from None
    if isinstance(verdict, Invalid):
        raise ConfigError(verdict.faults, verdict.origin)
    return verdict.settings


def _check(path: str | None) -> Valid | Invalid:
    try:
        return Valid(load(path))
    except ConfigError as fault:
        return Invalid(list(fault.faults), fault.origin)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_check(sys.argv[1] if len(sys.argv) > 1 else None)))
