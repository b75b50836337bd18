"""Sheds load while memory is short: reads the kernel's pressure, and has the workers take no new jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.supervisor.ports.memory_watch import MemoryWatch
from rqsup.supervisor.ports.systemd import memory_pressure_file
from rqsup.supervisor.pressure import read_percent, should_hold, should_shed

#: The whole machine's, where systemd names none.
MACHINE = "/proc/pressure/memory"
#: The reason while a watch is what sheds load.
RANG = "memory pressure: the watch that systemd set up for the unit rang"


class Shedder:
    """One task of the master's loop. Running jobs go on; `reason` says why no new ones are taken."""

    def __init__(self, *, settings: Callable[[], Settings], on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._blind = ""
        self._by_percent = False
        self._rang_at: float | None = None
        self._watch: MemoryWatch | None = None
        #: Why load is shed, in words; empty = it is not.
        self.reason = ""
        self._log = get_logger("master")

    async def run(self) -> None:
        """Look for ever."""
        self._arm()
        try:
            while True:
                await asyncio.sleep(self._settings().pressure.interval)
                self.run_once()
        finally:
            if self._watch:
                self._watch.close()

    def run_once(self) -> None:
        """Look once; a file in /proc or /sys answers at once."""
        rules = self._settings().pressure
        percent = self._read(rules.path or memory_pressure_file() or MACHINE) if rules.high else None
        before = bool(self.reason)
        self._by_percent = should_shed(percent, rules, shedding=self._by_percent)
        if self._watch and self._watch.rang():
            self._rang_at = time.monotonic()
        rang_s_ago = None if self._rang_at is None else time.monotonic() - self._rang_at
        self.reason = RANG if should_hold(rang_s_ago, rules) else ""
        if self._by_percent:
            self.reason = f"memory pressure: {percent:g} % of the time lost, allowed are {rules.high:g} %"
        shed = bool(self.reason)
        if shed and not before:
            self._log.warning("shedding load: workers take no new jobs", reason=self.reason)
        elif before and not shed:
            self._log.info("memory pressure is over: workers take jobs again")
        if shed != before:
            self._on_change()

    def _arm(self) -> None:
        self._watch = MemoryWatch.from_environment()
        try:
            if self._watch:
                self._watch.arm()
        except OSError as fault:
            self._log.warning("systemd's memory pressure watch cannot be used", error=str(fault))

    def _read(self, path: str) -> float | None:
        try:
            percent, fault = read_percent(Path(path).read_text(encoding="utf-8", errors="replace")), "no pressure file"
        except OSError as error:
            percent, fault = None, str(error)
        fault = "" if percent is not None else fault
        if fault and fault != self._blind:
            self._log.warning("memory pressure cannot be read; load is not shed", path=path, error=fault)
        self._blind = fault
        return percent
