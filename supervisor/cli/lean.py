"""Loads structlog without rich, before anything else loads structlog.

structlog imports rich where it can, for tracebacks on a terminal, which rqsup's logs never use; it has no setting against
that. So each master would carry 3 MB, and each command take 100 ms longer. Here an import of rich fails, but only while
structlog is imported: a rich that is loaded already stays, and the live views import it later as ever. Only in the command
line's process, the master's: in the zygote, applications get structlog with all it can do.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

#: As sys.modules has it for a module that cannot be imported: its import raises ModuleNotFoundError at once.
_ABSENT: Any = None


def load_structlog() -> None:
    """Import structlog; if it is loaded already, nothing changes."""
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = _ABSENT
    try:
        import_module("structlog")
    finally:
        if hidden and sys.modules.get("rich") is _ABSENT:
            del sys.modules["rich"]


load_structlog()
