"""Upgrade of rqsup itself: another program takes the place of this one, in the same process, with the same children.

1. The new program checks itself in a process of its own: it imports, reads the configuration and this master's state.
2. A moment in which nothing is under way that the exec would break off.
3. State and sockets are handed over, and the new program is executed. Whatever fails until then, this one goes on.

The other side, what the new program does first, is `succession`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from rqsup import __version__
from rqsup.errors import ReloadFailed, RqsupError, UpgradeFailed
from rqsup.logs import get_logger
from rqsup.supervisor import estate, signals
from rqsup.supervisor.bequest import bequeath
from rqsup.supervisor.estate import Estate, PortsEstate
from rqsup.supervisor.program import ESTATE_VARIABLE, Program, check, this_program
from rqsup.supervisor.role import Role, Stage

if TYPE_CHECKING:
    from rqsup.supervisor.master import Master
    from rqsup.supervisor.ports.control import ControlPort
    from rqsup.supervisor.ports.http import HttpPort

#: Takes one line of progress.
Tell = Callable[[str], None]
#: Replaces the workers, as the command `reload` with its arguments does.
Reload = Callable[[dict[str, Any], Tell], Awaitable[dict[str, Any]]]

#: Pause between two looks for a quiet moment, seconds.
LOOK_S = 0.005
#: Seconds in that wait for debts to be paid; they can be handed over, too, when Redis is away.
DEBTS_S = 1.0
#: Turns of the loop in which a signal that came before they were held has been acted on.
TURNS = 5


@dataclass(frozen=True, slots=True)
class Ports:
    """The two ports that clients connect to; they are held over the exec."""

    control: ControlPort
    http: HttpPort


class Upgrade:
    """One upgrade at a time; `last` says what the latest came to."""

    def __init__(self, master: Master, ports: Ports, reload: Reload) -> None:
        self._master = master
        self._ports = ports
        self._reload = reload
        self.under_way = False
        self.last = ""
        self._log = get_logger("master")

    async def run(self, tell: Tell, *, wait: str | None) -> NoReturn:
        """Be the program that is on disk now. Returns never; the new program goes on with the client's command.

        Args:
            tell: takes one line per step.
            wait: as in a reload, with which the new program begins.

        Raises:
            UpgradeFailed: this program goes on.
        """
        self._refuse()
        self.under_way = True
        try:
            await self._try(tell, wait)
        except UpgradeFailed as fault:
            self.last = f"failed, nothing changed: {str(fault).splitlines()[0]}"
            self._log.error("upgrade failed", error=str(fault))
            raise
        finally:
            self.under_way = False

    def complete(self, left: Estate) -> None:
        """Go on, in the new program, with what `run` began: new workers, and the answer to the command."""
        master = self._master
        still_s = time.monotonic() - left.at
        self.last = f"rqsup {__version__} took over from {left.rqsup}"
        self._log.info("upgraded", to=__version__, of=left.rqsup, still_ms=round(still_s * 1000))
        master.counters["upgrades"] += 1
        master.notifier.restore_watchdog()
        for requester in left.ports.requesters:
            master.spawn_task(self._answer(requester, left, still_s))
        if not left.ports.requesters:
            master.spawn_task(self._renew_quietly(left, still_s))
        # Last: a stop that waited has to find all workers in place.
        signals.release()

    async def _try(self, tell: Tell, wait: str | None) -> NoReturn:
        try:
            await self._run(tell, wait)
        except OSError as fault:
            raise UpgradeFailed(f"the system refuses what an upgrade needs ({fault}); nothing changed") from fault

    async def _answer(self, requester: int, left: Estate, still_s: float) -> None:
        try:
            await self._ports.control.answer(requester, lambda tell: self._renew(left, still_s, tell))
        except OSError:
            # The client is gone, but what it asked for goes on.
            await self._renew_quietly(left, still_s)

    async def _renew(self, left: Estate, still_s: float, tell: Tell) -> dict[str, Any]:
        """Replace the workers, whose code is still the old one, as in any reload."""
        tell(f"{self.last}, which took {still_s * 1000:.0f} ms; {len(left.pool.children)} workers go on")
        answer = {"rqsup": __version__, "from": left.rqsup, "still_ms": round(still_s * 1000)}
        if self._master.role is Role.SCHEDULER:
            self._master.notifier.ready(self.last)
            return answer
        try:
            return answer | await self._reload({"wait": left.wait}, tell)
        except RqsupError as fault:
            self.last += "; the workers are still the old ones"
            raise ReloadFailed(f"{self.last}: {fault}") from fault

    async def _renew_quietly(self, left: Estate, still_s: float) -> None:
        """After an upgrade by signal: nobody waits for the answer, the log has it."""
        try:
            await self._renew(left, still_s, lambda _: None)
        except ReloadFailed as fault:
            self._log.error("upgraded, but not the workers", error=str(fault))

    def _refuse(self) -> None:
        master = self._master
        if self.under_way:
            raise UpgradeFailed("an upgrade is already under way: its own command tells how it ends")
        if master.stage is not Stage.RUNNING:
            raise UpgradeFailed(f"the master is {master.stage}: upgrade it when it runs, or start it anew")
        if master.rollout.reloading:
            raise UpgradeFailed("a reload is under way: try again when it is over")

    async def _run(self, tell: Tell, wait: str | None) -> NoReturn:
        master, limits = self._master, self._master.settings.upgrade
        began, program = time.monotonic(), this_program()
        rehearsal = estate.write(bequeath(master, PortsEstate(), wait))
        try:
            version = await check(program, rehearsal, limits.check_timeout, own=master.pool.zygotes)
        finally:
            os.close(rehearsal)
        tell(f"rqsup {version} has checked itself in {time.monotonic() - began:.2f} s, and can take over")
        await self._until_quiet(limits.quiet_timeout)
        async with self._held_ports() as ports:
            with _held_signals():
                # A signal that was taken before is acted on now: it may be a stop.
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                await self._until_quiet(limits.quiet_timeout)
                self._log.info("upgrade", to=version, workers=len(master.pool.children))
                self._execute(program, bequeath(master, ports, wait))

    async def _until_quiet(self, timeout_s: float) -> None:
        """Wait until an exec would break nothing off; when this returns, that holds until the next await."""
        began = time.monotonic()
        while why := self._why_not_yet(time.monotonic() - began):
            if time.monotonic() - began > timeout_s:
                raise UpgradeFailed(
                    f"no quiet moment in {timeout_s:g} s (upgrade.quiet_timeout), nothing changed: {why}"
                )
            await asyncio.sleep(LOOK_S)

    def _why_not_yet(self, waited_s: float) -> str:
        master = self._master
        if master.farewell.begun:
            raise UpgradeFailed("a stop came first; the master ends as it is")
        if not master.pool.settled:
            return "a worker is being forked or asked for its stack"
        wanted = {master.rollout.zygote.pid} if master.rollout.zygote else set[int]()
        if master.pool.zygotes != wanted or (not wanted and master.role is not Role.SCHEDULER):
            return "a zygote starts or ends"
        if master.registry.in_debt and waited_s < DEBTS_S:
            return "jobs of a dead worker are on their way back"
        return ""

    @contextlib.asynccontextmanager
    async def _held_ports(self) -> AsyncIterator[PortsEstate]:
        """Clients wait to be accepted until the exec; if there is none, they are served again."""
        control, http = self._ports.control, self._ports.http
        listeners = await http.hold()
        try:
            listener, lock = await control.hold()
            try:
                yield PortsEstate(listener, lock, listeners, self._master.metrics_address, control.requesters())
            except BaseException:
                await control.go_on(listener, lock)
                raise
        except BaseException:
            await http.go_on(listeners)
            raise

    def _execute(self, program: Program, left: Estate) -> NoReturn:
        master = self._master
        document = estate.write(left)
        kept = [*left.descriptors(), document]
        environ = dict(os.environ) | master.notifier.variables | {ESTATE_VARIABLE: str(document)}
        # Executing and importing takes its time, in which nobody feeds the watchdog.
        master.notifier.stretch_watchdog(master.settings.upgrade.check_timeout)
        try:
            for descriptor in kept:
                os.set_inheritable(descriptor, True)
            program.replace(environ)
        except OSError as fault:
            master.notifier.restore_watchdog()
            for descriptor in kept:
                os.set_inheritable(descriptor, False)
            os.close(document)
            raise UpgradeFailed(f"the new program cannot be executed ({fault}); nothing changed") from fault


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    signals.hold()
    try:
        yield
    finally:
        signals.release()
