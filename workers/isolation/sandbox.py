"""The walls around a sandboxed job, and which of them this machine has.

Each wall stands by itself: where one is missing, the others hold. A wall that stood in the trial
and fails in a job ends that job, before its code runs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable
from mmap import mmap
from typing import Any

import msgspec

from rqsup.errors import SandboxIncomplete
from rqsup.logs import get_logger
from rqsup.settings import SandboxSettings
from rqsup.workers.isolation import landlock, seccomp
from rqsup.workers.isolation.fork import Call, run_forked
from rqsup.workers.isolation.protection import Protection
from rqsup.workers.kernel import hide_memory, leave_network, renounce_privileges

#: The walls in the order in which they are built. With all privileges given up, root is nobody special.
WALLS = ("rlimits", "network", "no_new_privs", "landlock", "seccomp")
#: Those without which the others are none; they need no demand.
ALWAYS = ("rlimits", "no_new_privs")
#: Files of the system that Python and its libraries read.
SYSTEM = (
    "/usr", "/lib", "/lib64", "/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/ca-trust",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/dev/zero", "/dev/random", "/dev/urandom", "/proc/self",
)  # fmt: skip
#: Settings that are limits of the kernel.
LIMITS = ("nproc", "address_space", "data", "fsize", "nofile", "cpu")
#: Seconds of processor time between a job's limit and the kernel's.
CPU_SPARE_S = 5
#: Seconds that the trial of the walls may take.
TRIAL_S = 10.0
#: Most bytes that the trial may tell.
TRIAL_BYTES = 10_000
#: Descriptors of the standard streams, which a job keeps.
STREAMS = 3


class Sandbox:
    """Builds the walls; one for each process that sandboxes."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._readable = _readable(settings)
        self._rules: Any = None
        self._rules_fault = ""
        try:
            self._rules = seccomp.build()
        except (ImportError, RuntimeError, OSError) as fault:
            self._rules_fault = f"{fault}; install rqsup[sandbox] and the system's libseccomp2"
        #: Why a wall cannot be built here, by its name; tried once, in a process that is thrown away.
        self.missing: dict[str, str] = self._try_walls()

    def check(self) -> None:
        """Compare what is demanded with what is there.

        Raises:
            SandboxIncomplete: a demanded wall is missing.
        """
        without = [f"{wall}: {self.missing[wall]}" for wall in ALWAYS if wall in self.missing]
        if without:
            raise SandboxIncomplete(
                f"no sandbox can be built on this machine ({'; '.join(without)}): run rqsup where it can, "
                'or give the tasks another level than isolation="sandbox"'
            )
        demanded = [f"{wall}: {why}" for wall, why in self.missing.items() if wall in self._settings.require]
        if demanded:
            raise SandboxIncomplete(
                f"sandbox.require demands what this machine does not give ({'; '.join(demanded)}): "
                "run rqsup where it is given, or take the name out of sandbox.require"
            )

    def protections(self) -> list[Protection]:
        """All walls, in force or not."""
        limits = {name: getattr(self._settings, name) for name in LIMITS}
        details = {
            "rlimits": " ".join(f"{name}={value}" for name, value in limits.items() if value),
            "network": "a network of its own without interfaces",
            "no_new_privs": "no capabilities",
            "seccomp": f"libseccomp filter, {len(seccomp.FORBIDDEN)} calls refused",
        }
        if "landlock" not in self.missing:
            details["landlock"] = f"ABI {landlock.version()}"
        return [Protection(wall, wall not in self.missing, self.missing.get(wall) or details[wall]) for wall in WALLS]

    def enter(self, folder: str, kept: Iterable[int], scoreboard: mmap | None) -> None:
        """Put this process, which was forked for one job, inside the walls.

        Args:
            folder: where it may write.
            kept: descriptors to leave open, besides its standard streams.
            scoreboard: memory to hide.

        Raises:
            OSError: a wall that stood in the trial cannot be built now.
        """
        if scoreboard is not None:
            # It is shared, so a stray store would change what the master believes of other workers.
            hide_memory(ctypes.addressof(ctypes.c_char.from_buffer(scoreboard)), len(scoreboard))
        # The connection to Redis, the master's channel, and whatever the application had opened.
        _close_all_but(kept)
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        for wall in WALLS:
            if wall not in self.missing:
                self._build(wall, folder)

    def _build(self, wall: str, folder: str) -> None:
        if wall == "rlimits":
            _limit(self._settings)
        elif wall == "network":
            leave_network()
        elif wall == "no_new_privs":
            renounce_privileges()
        elif wall == "landlock":
            writable = [(path, landlock.READ | landlock.WRITE) for path in (folder, *self._settings.write)]
            null = ("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE)
            landlock.restrict([*((path, landlock.READ) for path in self._readable), *writable, null])
        else:
            seccomp.load(self._rules)

    def _try_walls(self) -> dict[str, str]:
        ending = run_forked(Call(
            work=lambda pipe: msgspec.json.encode(self._faults(pipe)), limit=TRIAL_BYTES,
            deadline=time.monotonic() + TRIAL_S, overdue="no answer",
        ))  # fmt: skip
        if ending.answer is None:
            return dict.fromkeys(WALLS, f"the trial died: {ending.cause}")
        return msgspec.json.decode(ending.answer, type=dict[str, str])

    def _faults(self, pipe: int) -> dict[str, str]:
        """Build each wall around this process, and tell which cannot be."""
        # As for a job: with more open files than a job may have, no further wall could be built.
        _close_all_but([pipe])
        faults: dict[str, str] = {}
        for wall in WALLS:
            if wall == "seccomp" and self._rules is None:
                faults[wall] = self._rules_fault
                continue
            try:
                self._build(wall, "/nonexistent")
            except OSError as fault:
                faults[wall] = str(fault)
        return faults


#: The sandbox of this process, and what it was built for. The zygote's is inherited by its workers.
_built: tuple[SandboxSettings, Sandbox] | None = None


def sandbox_of(settings: SandboxSettings) -> Sandbox:
    """The sandbox for these settings; trying the walls takes a tenth of a second, so it is done once."""
    global _built  # noqa: PLW0603 - the processes forked from this one shall find it
    if _built is None or _built[0] != settings:
        _built = (settings, Sandbox(settings))
    return _built[1]


def _readable(settings: SandboxSettings) -> tuple[str, ...]:
    """What a job may read: Python, the application, a few files of the system, and what the settings name."""
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    application = {os.path.realpath(path) for path in sys.path}
    # A service that runs in / would open all.
    return tuple(sorted({*SYSTEM, *python, *application, *settings.read} - {"/"}))


def _close_all_but(kept: Iterable[int]) -> None:
    """Close all descriptors but these and the standard streams."""
    begin = STREAMS
    for descriptor in sorted(kept):
        if descriptor >= begin:
            os.closerange(begin, descriptor)
            begin = descriptor + 1
    os.closerange(begin, 1 << 20)


def _limit(settings: SandboxSettings) -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - before each job
        pages = [int(number) * resource.getpagesize() for number in file.read().split()]
    for number, value in (
        (resource.RLIMIT_NPROC, settings.nproc), (resource.RLIMIT_FSIZE, settings.fsize),
        (resource.RLIMIT_NOFILE, settings.nofile), (resource.RLIMIT_CPU, settings.cpu),
        (resource.RLIMIT_AS, settings.address_space and settings.address_space + pages[0]),
        (resource.RLIMIT_DATA, settings.data and settings.data + pages[5]),
    ):  # fmt: skip
        hard = resource.getrlimit(number)[1]
        if value and (hard == resource.RLIM_INFINITY or value < hard):
            # At the soft limit of processor time comes SIGXCPU, which tells the cause; at the hard one SIGKILL.
            spare = CPU_SPARE_S if number == resource.RLIMIT_CPU else 0
            highest = value + spare if hard == resource.RLIM_INFINITY else min(value + spare, hard)
            try:
                resource.setrlimit(number, (value, highest))
            except ValueError as fault:
                # So Python words the kernel's EPERM.
                raise OSError(errno.EPERM, f"setrlimit: {fault}") from None
    # A core file would be the job's memory, with the application's secrets, on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def with_folder(work: Callable[[str], Any]) -> Any:
    """Do something with a new private folder, and remove the folder with all that is in it."""
    folder = tempfile.mkdtemp(prefix="rqsup-job-")
    try:
        return work(folder)
    finally:
        try:
            shutil.rmtree(folder)
        except (OSError, RecursionError) as fault:
            get_logger("worker").warning("a job's temporary folder was not removed", folder=folder, error=str(fault))
