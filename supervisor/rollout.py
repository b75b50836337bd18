"""Which generation of code and configuration the pool should be of: first start, reload, roll back.

A reload cannot hurt: the new configuration is read and checked, then a new zygote imports the new code,
then the plan replaces workers one by one, each new one ready before an old one leaves. Whatever fails on
the way, the old generation stays, or comes back, and the reason is told.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from rqsup.errors import AppImportError, ReloadFailed, RqsupError
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.supervisor.canary import watch
from rqsup.supervisor.child import Death
from rqsup.supervisor.estate import GenerationEstate, RolloutEstate
from rqsup.supervisor.fixed import refuse_fixed
from rqsup.supervisor.generation import Generation
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.pool import Pool
from rqsup.supervisor.restart import Restart
from rqsup.supervisor.validation import validate
from rqsup.workers.isolation.protection import Protection


class Rollout:
    """The wanted generation, and the way from one to the next.

    `config` is the file that a reload reads anew, None = only the environment; `target` tells how many workers there should be; `on_change`
    has the plan look again.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        config: str | None,
        target: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        self._config = config
        self._target = target
        self._on_change = on_change
        self._pool: Pool | None = None
        self._wanted: Generation | None = None
        #: The one before, while a reload may still have to go back to it.
        self._previous: Generation | None = None
        #: The one whose zygote is being started again.
        self._reviving: Generation | None = None
        self._settings = settings
        self._latest = 0
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._failure = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self.restart = Restart(settings.workers.restart_pause, settings.workers.restart_cap)
        self.last_reload = ""
        #: A new worker is on trial.
        self.trial = False
        self._log = get_logger("master")

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._wanted.settings if self._wanted else self._settings

    @property
    def wanted(self) -> int:
        """Number of the wanted generation; 0 = none yet."""
        return self._wanted.number if self._wanted else 0

    @property
    def zygote(self) -> Generation | None:
        """The wanted generation, if it can fork."""
        return self._wanted if self._wanted and self._wanted.ready else None

    @property
    def may_fork(self) -> bool:
        """True when a worker can be started, and should: after a failed trial, another canary would spoil the same job again."""
        return self.zygote is not None and not (self.trial and self._failure)

    @property
    def protections(self) -> list[Protection]:
        """The walls of the wanted generation's sandbox; empty when no task asks for one."""
        return self._wanted.protections if self._wanted else []

    @property
    def reloading(self) -> bool:
        """True while a reload is under way."""
        return self._lock.locked()

    @property
    def check(self) -> str:
        """Function that a new worker has to call first; only the canary does."""
        return self.settings.canary.check if self.trial else ""

    async def start(self, pool: Pool) -> None:
        """Import the application for the first time.

        Raises:
            AppImportError: it cannot be imported.
        """
        self._pool = pool
        self._wanted = await self._prepare(self._settings, self._next_number())

    def bequeath(self) -> RolloutEstate:
        """What the next program has to know; to be asked while the wanted generation can fork, if there is one."""
        wanted = self._wanted
        zygote = (
            GenerationEstate(wanted.number, wanted.pid, wanted.descriptor, wanted.tasks, wanted.protections)
            if wanted
            else None
        )
        return RolloutEstate(self._latest, zygote, self.last_reload, self.restart)

    def inherit(self, pool: Pool, estate: RolloutEstate) -> None:
        """Go on with the generation of the program before this one, its zygote included."""
        self._pool, self._latest, self.last_reload = pool, estate.latest, estate.last_reload
        past = estate.restart
        self.restart.failures, self.restart.not_before, self.restart.reason = (
            past.failures,
            past.not_before,
            past.reason,
        )
        if estate.zygote:
            self._wanted = self._make(pool, self._settings, estate.zygote.number)
            self._wanted.inherit(estate.zygote)

    async def reload(self, tell: Callable[[str], None], *, wait: str | None) -> None:
        """Go over to the configuration and code that are on disk now.

        Args:
            tell: takes one line per step.
            wait: 'drained' = return only when the old workers are gone; else when the new ones are ready.

        Raises:
            ConfigError, AppImportError, ReloadFailed: everything stays, or is again, as it was.
        """
        if self._lock.locked():
            raise ReloadFailed("a reload is already under way: try again when it is over")
        async with self._lock:
            try:
                await self._roll(tell, wait)
            except RqsupError as fault:
                first = str(fault).strip().splitlines()[-1]
                self.last_reload = f"failed, nothing changed: {first}"
                self._log.error("reload failed", error=str(fault))
                raise
            finally:
                if self._wanted and not self._wanted.ready:
                    # Its zygote died during the reload, which left it to us.
                    self._start_reviving(self._wanted)
        self.last_reload = f"generation {self.wanted} took over"

    async def close(self) -> None:
        """End the zygote."""
        for task in self._tasks:
            task.cancel()
        if self._wanted:
            await self._wanted.farewell()

    def end_zygote(self, number: int) -> None:
        """End the zygote of a generation, because it does not answer; another takes its place."""
        for generation in (self._wanted, self._previous):
            if generation and generation.number == number:
                self._log.error("the zygote does not answer; ending it", generation=number)
                generation.kill()

    def worker_ready(self) -> None:
        """A worker became ready."""
        self.restart.succeeded()
        self._changed.set()

    def worker_died(self, death: Death) -> None:
        """A worker ended; one that never was ready slows further starts down, or fails the reload."""
        self._changed.set()
        if self.trial and death.generation == self.wanted and not death.orderly:
            self._failure = f"the canary died: {death.cause}"
        if death.was_ready or death.orderly:
            return
        if self.reloading and death.generation == self.wanted and not self._failure:
            self._failure = f"a new worker did not become ready: {death.cause}"
        pause_s = self.restart.failed(time.monotonic(), random.random(), death.cause)  # noqa: S311 - spreads starts
        self._log.error(
            "worker did not become ready", worker=death.number, cause=death.cause, pause_s=round(pause_s, 1)
        )

    async def _roll(self, tell: Callable[[str], None], wait: str | None) -> None:
        settings = await self._validated()
        refuse_fixed(self.settings, settings)
        tell("configuration is fine")
        generation = await self._prepare(settings, self._next_number())
        tell(f"generation {generation.number} has imported the application ({len(generation.tasks)} tasks)")
        previous, self._wanted, self._failure = self._wanted, generation, ""
        self._previous = previous
        self.restart.succeeded()
        self._on_change()
        try:
            await self._try_canary(generation, tell)
            await self._until_ready(generation, tell)
        except BaseException:
            self.trial = False
            # Back to the old code: its zygote still stands by, and the plan replaces what was replaced.
            self._wanted, self._previous = previous, None
            self.restart.succeeded()
            generation.close()
            self._on_change()
            raise
        self._previous = None
        self.restart.pause_s, self.restart.cap_s = settings.workers.restart_pause, settings.workers.restart_cap
        if previous:
            previous.close()
        tell(f"generation {generation.number} is ready with {self._target()} workers")
        while wait == "drained" and self._others(generation.number):
            await self._next_change()

    async def _try_canary(self, generation: Generation, tell: Callable[[str], None]) -> None:
        """Let one new worker show what it can, if the configuration asks for it."""
        canary = generation.settings.canary
        if not canary.check and not canary.jobs:
            return
        self.trial = True
        self._on_change()
        while not self._ready(generation.number):
            self._give_up_on_failure(generation)
            await self._next_change()
        tell("the canary is ready")
        if canary.jobs:
            score, give_up = lambda: self._score(generation.number), lambda: self._give_up_on_failure(generation)
            tell(await watch(canary, score=score, give_up_on_failure=give_up))
        self.trial = False
        self._on_change()

    def _score(self, number: int) -> tuple[int, int]:
        """Jobs that a generation's workers ran, and those among them that ended in an error."""
        children = self._pool.children.values() if self._pool else ()
        slots = [child.slot for child in children if child.assignment.generation == number]
        errors = sum(slot.retried + slot.buried for slot in slots)
        return errors + sum(slot.succeeded for slot in slots), errors

    def _give_up_on_failure(self, generation: Generation) -> None:
        if not generation.ready:
            self._failure = self._failure or "the new zygote died"
        if self._failure:
            raise ReloadFailed(self._failure)

    async def _until_ready(self, generation: Generation, tell: Callable[[str], None]) -> None:
        told = 0
        while (ready := self._ready(generation.number)) < self._target():
            if ready > told:
                tell(f"{ready} of {self._target()} workers replaced")
                told = ready
            self._give_up_on_failure(generation)
            await self._next_change()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _validated(self) -> Settings:
        own = self._pool.zygotes if self._pool else set()
        return await validate(self._config, timeout_s=self.settings.workers.boot_timeout, own=own)

    async def _prepare(self, settings: Settings, number: int) -> Generation:
        pool = self._pool
        if pool is None:
            raise AssertionError("start comes first")
        generation = self._make(pool, settings, number)
        await generation.prepare(pool.board.descriptor)
        return generation

    def _make(self, pool: Pool, settings: Settings, number: int) -> Generation:
        return Generation(
            number, settings, on_forked=pool.forked, on_refused=pool.refused, on_lost=self._zygote_lost,
            zygotes=pool.zygotes,
        )  # fmt: skip

    def _zygote_lost(self, generation: Generation) -> None:
        if self._pool:
            self._pool.lost(generation)
        self._changed.set()
        if generation.closed or generation is not self._wanted or self.reloading:
            return
        self._start_reviving(generation)

    def _start_reviving(self, generation: Generation) -> None:
        if self._reviving is generation:
            # Still at it: each reload that failed meanwhile would else add one more that tries for ever.
            return
        self._reviving = generation
        self._log.error("zygote died; starting another")
        task = asyncio.create_task(self._revive(generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _revive(self, lost: Generation) -> None:
        """Start a zygote in place of one that died; its workers go on meanwhile."""
        try:
            await self._until_revived(lost)
        finally:
            if self._reviving is lost:
                self._reviving = None

    async def _until_revived(self, lost: Generation) -> None:
        failed = False
        while self._wanted is lost:
            try:
                revived = await self._prepare(lost.settings, lost.number)
            except AppImportError as fault:
                reason, failed = str(fault).strip().splitlines()[-1], True
                pause_s = self.restart.failed(time.monotonic(), random.random(), reason)  # noqa: S311 - spreads starts
                self._log.error("zygote cannot be started again", error=reason, pause_s=round(pause_s, 1))
                await asyncio.sleep(pause_s)
                continue
            if self._wanted is not lost:
                revived.close()
                return
            self._wanted = revived
            if failed:
                # What held the pool up is over; where no worker is missing, none will become ready and tell.
                self.restart.succeeded()
            self._on_change()

    def _next_number(self) -> int:
        self._latest += 1
        return self._latest

    def _ready(self, number: int) -> int:
        children = self._pool.children.values() if self._pool else ()
        return sum(child.phase is Phase.READY and child.assignment.generation == number for child in children)

    def _others(self, number: int) -> int:
        children = self._pool.children.values() if self._pool else ()
        return sum(child.assignment.generation != number for child in children)
