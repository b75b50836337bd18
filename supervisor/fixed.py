"""Settings that a running master cannot change: it would be another master."""

from __future__ import annotations

from rqsup.errors import ReloadFailed
from rqsup.settings import Settings

FIXED = ("pool", "namespace", "redis", "control", "metrics")


def refuse_fixed(old: Settings, new: Settings) -> None:
    """Refuse new settings that change one of those, by name.

    Raises:
        ReloadFailed: they do.
    """
    changed = [name for name in FIXED if getattr(old, name) != getattr(new, name)]
    if old.workers.cgroups != new.workers.cgroups:
        changed.append("workers.cgroups")
    if changed:
        raise ReloadFailed(f"{', '.join(changed)}: cannot change in a running master; restart it for that")
