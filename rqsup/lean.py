"""Loads structlog without what it seldom needs: rich, for tracebacks on a terminal, and asyncio, for logging from coroutines.

structlog imports both where it can, and has no setting against that: 6 MB in each master and zygote, and 100 ms of each
command. Here it gets stand-ins that load the real ones when something is asked of them, so that an application finds in it
all that it can do. Whatever is loaded already, is used as it is.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import FrameType, ModuleType
from typing import Any

#: Put off, with the parts that structlog imports by name.
PUT_OFF = ("asyncio", "rich", "rich.console", "rich.pretty", "rich.traceback")


class _Part:
    """Stands for a class of a module."""

    def __init__(self, module: str, name: str) -> None:
        self._origin = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def _real(self) -> Any:
        module, name = self._origin
        return getattr(import_module(module), name)


class _StandIn(ModuleType):
    """Stands for a module, and loads it when one of its names is used."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__" and "." not in self.__name__:
            return self._load().__path__  # somebody imports another part of the package
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self and _is_structlog(sys._getframe(1)):  # noqa: SLF001 - there is no public way to see who asks
            return _Part(self.__name__, name)  # it asks for it by name while it is loaded
        inner = f"{self.__name__}.{name}"
        return import_module(inner) if inner in PUT_OFF else getattr(self._load(), name)

    def _load(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return import_module(self.__name__)


def _is_structlog(caller: FrameType) -> bool:
    # What structlog imports for its part (Twisted, where it is installed) gets the real ones.
    return str(caller.f_globals.get("__name__", "")).partition(".")[0] == "structlog"


def load_structlog() -> None:
    """Import structlog; if it is loaded already, nothing changes."""
    missing = [name for name in PUT_OFF if name not in sys.modules and name.partition(".")[0] not in sys.modules]
    stand_ins = {name: _StandIn(name) for name in missing}
    sys.modules.update(stand_ins)
    # Of each record, logging asks asyncio for the task (since Python 3.12), where it finds it loaded; structlog makes a record.
    switches: dict[str, Any] = logging.__dict__
    asks, switches["logAsyncioTasks"] = switches.get("logAsyncioTasks", True), False
    try:
        import_module("structlog")
    finally:
        switches["logAsyncioTasks"] = asks
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


load_structlog()

import structlog as structlog  # noqa: E402, PLC0414 - only now; others import it from here
