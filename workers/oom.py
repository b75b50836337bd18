"""Where the kernel counts the processes that it killed for lack of memory.

A process's cgroup has the count: `memory.events` in cgroup v2, `memory.oom_control` in v1. Where neither can
be read, the whole machine's counter is taken.
"""

from __future__ import annotations

from pathlib import Path

#: The machine's counter, for want of a cgroup's.
MACHINE = Path("/proc/vmstat")
#: The counter's file inside a cgroup, by the type of its file system.
FILES = {"cgroup2": "memory.events", "cgroup": "memory.oom_control"}


def read_count(path: Path) -> int | None:
    """The number of OOM kills in a counter's file; None when it cannot be read."""
    try:
        return count_in(path.read_text())
    except OSError:
        return None


def count_in(text: str) -> int | None:
    """The number of OOM kills in the text of a counter; None when it does not tell."""
    lines = text.splitlines()
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
