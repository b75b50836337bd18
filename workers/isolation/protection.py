"""What is told of one wall of the sandbox. Apart from the walls themselves, whose code the master must not carry."""

from __future__ import annotations

import msgspec


class Protection(msgspec.Struct, frozen=True):
    """One wall, for people and programs: `rqsup status` shows it."""

    name: str
    in_force: bool
    #: What it is exactly, or why it is missing.
    detail: str
