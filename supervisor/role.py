"""What a master does, and where it stands in its own life."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """What one master does."""

    ALL = "all"
    WORKER = "worker"
    SCHEDULER = "scheduler"


class Stage(enum.StrEnum):
    """Where the master stands in its own life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
