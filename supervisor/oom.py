"""Was it the kernel, short of memory, that killed a worker? Its counters of OOM kills tell.

Where the counters are: rqsup/workers/oom.py, because a worker asks the same about the process of an isolated job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rqsup.workers.oom import MACHINE, find_counter, read_count


@dataclass(slots=True)
class Tally:
    """One counter: how much of it is explained, and what it was at the last tick."""

    explained: int
    at_tick: int


@dataclass(slots=True)
class OomWatch:
    """Tells deaths by OOM kill from others. `tick` is called about once a second.

    A kill of a job's own child counts, too, and is nobody's death here. So a count that no death
    claimed within two ticks is forgotten: it must not explain an operator's `kill -9` an hour later.
    """

    _tallies: dict[Path, Tally] = field(default_factory=dict)

    def counter_of(self, pid: int, own: Path | None = None) -> Path:
        """The counter that a death of this process would move; to be asked while it lives. `own` = one for it alone."""
        path = own or find_counter(pid) or MACHINE
        if path not in self._tallies:
            count = read_count(path) or 0
            self._tallies[path] = Tally(count, count)
        return path

    def explains(self, path: Path | None) -> bool | None:
        """Whether a process that died by SIGKILL just now was killed for lack of memory; None = unknown."""
        tally = self._tallies.get(path) if path else None
        count = read_count(path) if path else None
        if tally is None or count is None:
            return None
        if count <= tally.explained:
            return False
        tally.explained += 1
        return True

    def bequeath(self) -> dict[str, Tally]:
        """The tallies by path, for the next program."""
        return {str(path): tally for path, tally in self._tallies.items()}

    def inherit(self, tallies: dict[str, Tally]) -> None:
        """Go on with the tallies of the program before this one: kills since then are not forgotten."""
        self._tallies.update({Path(path): tally for path, tally in tallies.items()})

    def tick(self) -> None:
        """Forget kills that no death explained, and counters that are gone."""
        for path, tally in list(self._tallies.items()):
            count = read_count(path)
            if count is None:
                del self._tallies[path]
                continue
            tally.explained = max(tally.explained, tally.at_tick)
            tally.at_tick = count
