"""What rqsup promises of its ready workers while everything happens at once. Pure.

The promise: at every moment at which a master answers,

    ready >= floor - killed

- `floor` is the target at which all workers were last ready; a smaller target lowers it at once, a larger one raises it only
  when that many are ready. A master that has just been started promises nothing until all of its workers are ready once.
- `killed` counts workers that somebody outside killed, until the master has buried them and all workers are ready again.
- Nothing else is allowed for: no reload, good or bad, no dead zygote, no quiet, no stopped master, no recycling.
- A pool that is left alone is whole again within `HEAL_S`: as many ready as wanted, and not degraded.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

#: Seconds in which an undisturbed pool has to be whole again. The longest way: a dead zygote, an import, restart pauses.
HEAL_S = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a master that answered."""

    pid: int
    target: int
    ready: int
    state: str
    #: Pids of all workers that it knows.
    workers: AbstractSet[int]

    @property
    def whole(self) -> bool:
        """All workers wanted are ready, and nothing is under way."""
        return self.ready >= self.target and self.state in {"running", "quiet"}


@dataclass(slots=True)
class Promise:
    """Compares samples, in their order, with the promise."""

    pid: int = 0
    floor: int = 0
    killed: set[int] = field(default_factory=set)

    def kill(self, pid: int) -> None:
        """Note, before it happens, that a worker is killed from outside."""
        self.killed.add(pid)

    def scale(self, target: int) -> None:
        """Note, before it happens, that so many workers are wanted: two orders may lie between two samples."""
        self.floor = min(self.floor, target)

    def observe(self, sample: Sample) -> str:
        """Take in a sample; returns how it breaks the promise, empty if it does not."""
        if sample.pid != self.pid:
            self.pid, self.floor = sample.pid, 0
            self.killed &= sample.workers
        if sample.state == "stopping":
            self.floor = 0
            return ""
        self.scale(sample.target)
        least = self.floor - len(self.killed)
        if sample.ready < least:
            return f"{sample.ready} workers are ready, promised are {least} (floor {self.floor}, {len(self.killed)} killed)"
        # A corpse that the master has not buried yet still counts as ready.
        if sample.ready >= sample.target and not self.killed & sample.workers:
            self.floor = sample.target
            self.killed.clear()
        return ""
