"""What a connection can send."""

from __future__ import annotations

from typing import Protocol

from rqsup.store.scripts import Script


class Sendable(Protocol):
    """A call of a script: `scripts.Call`, or a job's `Sending`."""

    @property
    def script(self) -> Script:
        """The script that it runs."""
        ...

    def packed(self, *, flags: bool) -> bytes:
        """The command as it goes over the wire."""
        ...
