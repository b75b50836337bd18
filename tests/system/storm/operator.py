"""The operator of the storm: carries out actions on one master, and does as systemd would when it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rqsup.errors import MasterRefused, MasterUnreachable
from tests.system.daemon import Daemon
from tests.system.storm.actions import Action, Kind

#: What is wrong with a new version of the application or its configuration.
BAD_CODE = ("def broken(:\n", "import a_module_that_is_not_there\n", "raise RuntimeError('at import')\n",
            "def check():\n    raise RuntimeError('unfit')\n")  # fmt: skip
GOOD_CODE = "def check():\n    pass\n"
#: What a reload says that came while another one was under way: no fault of either.
BUSY = "already under way"
#: Seconds for a stop, a reload, or a death that has to come.
LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Pause:
    """When the master was stopped by a signal, wall clock."""

    begin: float
    end: float


class Operator:
    """Acts. `complaints` are the things that rqsup should have done otherwise.

    Args:
        daemon: the master.
        module: file of the application that a deploy replaces.
        before_kill: is told each worker before it is killed.
        before_scale: is told each target before it is ordered.
    """

    def __init__(
        self, daemon: Daemon, module: Path, *, before_kill: Callable[[int], None], before_scale: Callable[[int], None]
    ) -> None:
        self.daemon = daemon
        self.module = module
        self.module.write_text(GOOD_CODE)
        self.complaints: list[str] = []
        self.pauses: list[Pause] = []
        self._before_kill = before_kill
        self._before_scale = before_scale
        self._reloads: list[threading.Thread] = []
        self._acts: dict[Kind, Callable[[Action], None]] = {
            Kind.RELOAD: self._reload,
            Kind.RELOAD_BY_SIGNAL: self._reload_by_signal,
            Kind.RELOAD_BAD: self._reload_bad,
            Kind.SCALE: self._scale,
            Kind.QUIET: self._quiet,
            Kind.KILL_WORKER: lambda action: self._kill(_pick(self._workers(), action.share, 1)),
            Kind.KILL_BUSY: lambda action: self._kill(_pick(self._workers("busy"), action.share, 1)),
            Kind.KILL_SEVERAL: lambda action: self._kill(_pick(self._workers(), action.share, action.many)),
            Kind.KILL_GROUP: self._kill_group,
            Kind.KILL_ZYGOTE: self._kill_zygote,
            Kind.FREEZE_MASTER: self._freeze,
            Kind.KILL_MASTER: self._kill_master,
            Kind.STOP_START: self._stop_start,
        }

    def act(self, action: Action) -> None:
        """Carry out one action."""
        self._acts[action.kind](action)

    def finish(self) -> None:
        """Wait for the reloads that run beside the actions."""
        for thread in self._reloads:
            thread.join()
        self._reloads.clear()

    def reset(self) -> None:
        """Bring the pool back to what its configuration says."""
        self.finish()
        self._tell("resume")
        self._before_scale(self.daemon.settings["workers"]["count"])
        self._tell("scale", reset=True)

    def _tell(self, command: str, **arguments: Any) -> None:
        self.daemon.ask(command, timeout_s=LIMIT_S, **arguments)

    def _await_start(self) -> None:
        """Wait until the master has its code: before, it refuses a reload, and at first a signal ends it, as any program that just starts."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(MasterUnreachable):
                if self.daemon.status()["generation"]:
                    return
            time.sleep(0.02)

    def _scale(self, action: Action) -> None:
        self._before_scale(action.many)
        self._tell("scale", workers=action.many)

    def _reload_by_signal(self, _: Action) -> None:
        self._await_start()
        self.daemon.signal(signal.SIGHUP)

    def _reload(self, action: Action) -> None:
        if action.hasty:
            thread = threading.Thread(target=self._try_reload, daemon=True)
            thread.start()
            self._reloads.append(thread)
        else:
            # One that runs beside the actions may be hit by them, and then rolls back; this one must succeed.
            self.finish()
            self._await_start()
            fault = self._try_reload()
            if fault and BUSY not in fault:
                self.complaints.append(f"{action}: a good reload was refused: {fault}")

    def _try_reload(self) -> str:
        try:
            self._tell("reload", wait="ready")
        except (MasterRefused, MasterUnreachable) as fault:
            return str(fault).strip().splitlines()[-1]
        return ""

    def _reload_bad(self, action: Action) -> None:
        self.finish()
        self._await_start()
        broken = int(action.share * (len(BAD_CODE) + 1))
        good_config = self.daemon.config.read_text()
        if broken < len(BAD_CODE):
            self.module.write_text(BAD_CODE[broken])
        else:
            self.daemon.config.write_text(f"{good_config}\nwrokers: {{}}\n")
        try:
            if not self._try_reload():
                self.complaints.append(f"{action}: a broken reload was taken")
        finally:
            self.module.write_text(GOOD_CODE)
            self.daemon.config.write_text(good_config)

    def _quiet(self, action: Action) -> None:
        self._tell("quiet")
        time.sleep(action.share * 0.3)
        self._tell("resume")

    def _workers(self, state: str | None = None) -> list[int]:
        return [worker["pid"] for worker in self.daemon.workers(state) if worker["pid"]]

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            self._before_kill(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _kill_group(self, action: Action) -> None:
        for pid in _pick(self._workers("busy"), action.share, 1):
            self._before_kill(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _kill_zygote(self, action: Action) -> None:
        workers = set(self._workers())
        children = [child.pid for child in psutil.Process(self.daemon.pid).children()]
        zygotes = [pid for pid in children if pid not in workers and _title(pid).startswith("rqsup: zygote")]
        for pid in _pick(zygotes, action.share, 1):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _freeze(self, action: Action) -> None:
        begin = time.time()
        self.daemon.signal(signal.SIGSTOP)
        # Now and then longer than the master takes for a stall of its own (STALL_S).
        time.sleep(3.0 if action.share > 0.9 else action.share)
        self.daemon.signal(signal.SIGCONT)
        self.pauses.append(Pause(begin, time.time()))

    def _kill_master(self, _: Action) -> None:
        self.daemon.kill()
        self.daemon.launch(path=self.module.parent)

    def _stop_start(self, action: Action) -> None:
        self._await_start()
        self.daemon.signal(signal.SIGTERM if action.share < 0.7 else signal.SIGINT)
        status = self.daemon.wait(LIMIT_S)
        if status != 0:
            self.complaints.append(f"{action}: the master ended with status {status}")
        self.daemon.launch(path=self.module.parent)


def _pick(pids: list[int], share: float, many: int) -> list[int]:
    """So many neighbours of a list, from the place that the share says."""
    start = int(share * len(pids))
    return (pids[start:] + pids[:start])[:many]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
