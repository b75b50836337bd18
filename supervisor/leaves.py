"""A cgroup of its own, a leaf, for each worker: what its jobs start cannot leave it, and dies with it.

A process group is left by `setsid`, a parent by a double fork; a cgroup is left by nobody without the
right to write there. The master makes the leaves, the zygote puts each fork into its one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from rqsup.errors import ConfigError
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.workers.oom import read_count

#: The master's own leaf. A cgroup that gives controllers to its leaves may hold no process itself; and
#: DelegateSubgroup=supervisor has systemd start the master there.
MASTERS_LEAF = "supervisor"
#: Extended attributes by which systemd marks a cgroup that it leaves to a service.
MARKS = ("user.delegate", "trusted.delegate")
#: Controllers asked for; `memory` counts OOM kills leaf by leaf, `pids` and `cpu` are for operators to look at.
CONTROLLERS = ("memory", "pids", "cpu")


class Leaves:
    """Makes, empties and removes the leaves of one pool below the cgroup that was delegated to it."""

    def __init__(self, root: Path, pool: str) -> None:
        self._root = root
        self._prefix = f"rqsup-{pool}."
        #: Emptied and not yet removed: the kernel takes a moment to end what was killed.
        self._doomed: set[Path] = set()
        self._log = get_logger("master")

    @classmethod
    def open(cls, settings: Settings, environ: Mapping[str, str] = os.environ) -> Leaves | None:
        """Get ready to make leaves, with the master in one of its own; None where none are wanted.

        Raises:
            ConfigError: they are demanded, and this cgroup is not ours to divide.
        """
        if settings.workers.cgroups == "shared":
            return None
        root = delegated_root()
        reason = why_not(root, environ)
        if root is None or reason:
            raise _refusal(
                f"{reason}: install the drop-in cgroups.conf (Delegate=yes), give the container a writable cgroup v2, or"
            )
        leaves = cls(root, settings.pool)
        try:
            leaves.move_in()
        except OSError as fault:
            raise _refusal(
                f"the master cannot make itself a leaf in {root} ({fault.strerror}): nothing else may divide this cgroup, or"
            ) from fault
        return leaves

    def move_in(self) -> None:
        """Put the master into its own leaf, and give controllers to all leaves where that can be had.

        Raises:
            OSError: the kernel refuses.
        """
        mine = self._root / MASTERS_LEAF
        mine.mkdir(exist_ok=True)
        (mine / "cgroup.procs").write_text(str(os.getpid()))
        self._remove_stale()
        for name in CONTROLLERS:
            try:
                (self._root / "cgroup.subtree_control").write_text(f"+{name}")
            except OSError as fault:
                # Without it, leaves still end all that a job started; OOM kills are then counted further up.
                self._log.info("cgroup leaves go without a controller", controller=name, error=fault.strerror)

    def make(self, worker: str) -> tuple[str, str]:
        """A leaf for this worker: its folder, or why there is none."""
        leaf = self._root / f"{self._prefix}{worker}"
        try:
            leaf.mkdir()
        except OSError as fault:
            return "", f"the kernel refuses a cgroup leaf: {fault}"
        return str(leaf), ""

    def end(self, leaf: str) -> None:
        """End everything in a leaf, and remove it as soon as it is empty."""
        end_all(leaf)
        self._doomed.add(Path(leaf))
        self.sweep()

    def sweep(self) -> None:
        """Remove the leaves that have become empty; to be called now and then."""
        for leaf in list(self._doomed):
            # Not empty yet: looked at again when the next process is reaped, or at the next tick.
            with contextlib.suppress(OSError):
                leaf.rmdir()
            if not leaf.exists():
                self._doomed.discard(leaf)

    def _remove_stale(self) -> None:
        """End what a killed predecessor of this pool left behind. The control socket's lock says that it is gone."""
        for leaf in self._root.glob(f"{self._prefix}*"):
            # After an upgrade in place, the workers that go on are still our children.
            if not any(parent_of(pid) == os.getpid() for pid in members(leaf)):
                self.end(str(leaf))


def end_all(leaf: str) -> None:
    """Kill every process in a cgroup at once, however it was started; no leaf, no processes."""
    if not leaf:
        return
    # Gone already, or a kernel before 5.14, where the worker's process group has to do.
    with contextlib.suppress(OSError):
        Path(leaf, "cgroup.kill").write_text("1")


def oom_counter(leaf: str) -> Path | None:
    """The file that counts the OOM kills of this leaf alone; None without a memory controller."""
    path = Path(leaf, "memory.events")
    return path if leaf and read_count(path) is not None else None


def members(leaf: Path) -> list[int]:
    """Processes in a cgroup; none when it is gone."""
    try:
        return [int(pid) for pid in (leaf / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def parent_of(pid: int) -> int:
    """A process's parent; 0 when it is gone (proc(5), field 4 of stat)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def delegated_root() -> Path | None:
    """The cgroup that this process may divide: its own, or the one above its own leaf; None without cgroup v2."""
    own = own_cgroup(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    return own.parent if own and own.name == MASTERS_LEAF else own


def own_cgroup(groups: str, mounts: str) -> Path | None:
    r"""The folder of a process's cgroup v2, from the texts of /proc/PID/cgroup and /proc/PID/mountinfo (proc(5)).

    >>> own_cgroup("4:memory:/x\n0::/a", "29 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
    PosixPath('/sys/fs/cgroup/a')
    """
    member = next((line[3:] for line in groups.splitlines() if line.startswith("0::")), None)
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        root, point = mount.split()[3:5]
        if member is not None and rest.startswith("cgroup2 "):
            # In a container without a cgroup namespace, the mount shows a part of the tree only.
            return Path(point, member.removeprefix(root.rstrip("/")).lstrip("/"))
    return None


def _refusal(reason: str) -> ConfigError:
    return ConfigError([f"workers.cgroups: leaf is demanded, but {reason} set it to shared"])


def why_not(root: Path | None, environ: Mapping[str, str]) -> str:
    """Why this cgroup may not be divided; empty when it may."""
    if root is None:
        return "this machine shows no cgroup v2"
    if not os.access(root, os.W_OK) or not os.access(root / "cgroup.procs", os.W_OK):
        return f"{root} may not be written to by user {os.geteuid()}"
    # To root everything is writable; but what systemd did not delegate, it goes on ordering itself.
    if os.geteuid() == 0 and "INVOCATION_ID" in environ and not _is_marked(root):
        return f"systemd has not delegated {root}"
    return ""


def _is_marked(root: Path) -> bool:
    for name in MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(root, name) == b"1":
                return True
    return False
