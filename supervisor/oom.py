"""Was it the kernel, short of memory, that killed a worker? Its counters of OOM kills tell.

A worker's cgroup counts the processes in it that the kernel killed for lack of memory: `memory.events` in
cgroup v2, `memory.oom_control` in v1. Where neither can be read, the whole machine's counter is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

#: The machine's counter, for want of a cgroup's.
MACHINE = Path("/proc/vmstat")
#: The counter's file inside a cgroup, by the type of its file system.
FILES = {"cgroup2": "memory.events", "cgroup": "memory.oom_control"}


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

    def counter_of(self, pid: int) -> Path:
        """The counter that a death of this process would move; to be asked while it lives."""
        path = find_counter(pid) or MACHINE
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


def read_count(path: Path) -> int | None:
    """The number of OOM kills in a counter's file; None when it cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def find_counter(pid: int) -> Path | None:
    """The file in which a process's cgroup counts OOM kills, if there is one that can be read."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    return next((path for path in candidates(groups, mounts) if read_count(path) is not None), None)


def candidates(groups: str, mounts: str) -> list[Path]:
    """Where a process's counters are, from the text of /proc/PID/cgroup and /proc/PID/mountinfo (proc(5)).

    >>> candidates("0::/pool.slice/a", "29 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    [PosixPath('/sys/fs/cgroup/pool.slice/a/memory.events')]
    """
    member: dict[str, str] = {}
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            member["cgroup2"] = path
        elif "memory" in controllers.split(","):
            member["cgroup"] = path
    found = []
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        root, point = mount.split()[3:5]
        kind, _, options = rest.split(" ", 2)
        if kind not in member or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        # In a container without a cgroup namespace, the mount shows a part of the tree only.
        inside = member[kind].removeprefix(root.rstrip("/")).lstrip("/")
        found.append(Path(point, inside, FILES[kind]))
    return found
