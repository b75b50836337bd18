"""The estate: all that a master leaves to the program that takes its place in an upgrade, as one document.

The document is JSON in a memfd, so that programs of two versions can read it: fields that a program does not
know are passed over, fields that are not there have a default. What cannot be said that way needs a new
VERSION. Descriptors stand in it as numbers; they stay open over the exec. Times are seconds of CLOCK_MONOTONIC,
which an exec does not change.
"""

from __future__ import annotations

import os

import msgspec

from rqsup.errors import EstateUnfit
from rqsup.settings import Settings
from rqsup.supervisor.autoscale import Course
from rqsup.supervisor.child import Verdict
from rqsup.supervisor.oom import Tally
from rqsup.supervisor.output import Remains
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.restart import Restart
from rqsup.supervisor.snapshot import RecoveryView
from rqsup.supervisor.upkeep.debt import Debt
from rqsup.workers.assignment import Assignment
from rqsup.workers.isolation.protection import Protection
from rqsup.workers.protocol import protocol
from rqsup.workers.slot import CurrentJob, Order

#: Format of the document.
VERSION = 1


class ChildEstate(msgspec.Struct, frozen=True):
    """One worker: the fields of `Child` that are no process's own."""

    assignment: Assignment
    pid: int
    channel: int
    box: int
    phase: Phase
    forked_at: float
    deadline: float | None = None
    started_ticks: int = 0
    verdict: Verdict | None = None
    abandoned: str = ""
    unfit: str = ""
    was_ready: bool = False
    luck: float = 0.0
    memory: int = 0
    worn: str = ""
    stack: str = ""
    #: The master's end of its output pipe; negative = its output is not captured. What was read of it, and not told yet.
    output: int = -1
    output_left: Remains = Remains()


class PoolEstate(msgspec.Struct, frozen=True):
    """The workers, and what is counted over them."""

    scoreboard: int
    folded: dict[str, int]
    children: list[ChildEstate]
    order: Order
    strangers: int = 0
    oom: dict[str, Tally] = {}


class GenerationEstate(msgspec.Struct, frozen=True):
    """The zygote of the wanted generation."""

    number: int
    pid: int
    socket: int
    tasks: list[str]
    protections: list[Protection] = []


class RolloutEstate(msgspec.Struct, frozen=True):
    """Which generation is wanted, and how its starts went."""

    latest: int
    zygote: GenerationEstate | None
    last_reload: str
    restart: Restart


class RegistryEstate(msgspec.Struct, frozen=True):
    """What is owed to dead workers' jobs, and whom Redis knows."""

    debts: list[Debt]
    registered: list[str]
    lost: dict[str, CurrentJob | None]
    recoveries: list[RecoveryView]


class PortsEstate(msgspec.Struct, frozen=True):
    """Sockets that clients connect to meanwhile, and the client that waits for the upgrade."""

    #: The control socket, and the lock on its place; negative = not open yet, as in the rehearsal.
    control: int = -1
    lock: int = -1
    http: list[int] = []
    metrics_address: str = ""
    requesters: list[int] = []


class ClockEstate(msgspec.Struct, frozen=True):
    """How long the loop's turns took so far."""

    turns: int = 0
    longest_s: float = 0.0
    slow: int = 0


class MasterEstate(msgspec.Struct, frozen=True):
    """The master's own small state."""

    started_at: float
    quiet: bool
    told_ready: bool
    pardon_until: float
    counters: dict[str, int]
    scaled_to: int | None
    course: Course | None
    shedding: str
    #: Why Redis does not answer; empty = it does.
    redis_fault: str = ""
    clock: ClockEstate = ClockEstate()


class Estate(msgspec.Struct, frozen=True):
    """The whole document."""

    version: int
    #: What workers and zygote understand (rqsup/workers/protocol.py).
    protocol: str
    #: The version of rqsup that wrote it.
    rqsup: str
    #: The settings in force, as JSON: a program that cannot read them any more reads the configuration instead.
    settings: msgspec.Raw
    #: When it was written.
    at: float
    master: MasterEstate
    pool: PoolEstate
    rollout: RolloutEstate
    registry: RegistryEstate
    ports: PortsEstate
    #: What `rqsup upgrade --wait` waits for.
    wait: str | None = None

    def descriptors(self) -> list[int]:
        """All descriptors that it names."""
        pool, ports, zygote = self.pool, self.ports, self.rollout.zygote
        named = [pool.scoreboard, ports.control, ports.lock, *ports.http, *ports.requesters]
        named += [descriptor for child in pool.children for descriptor in (child.channel, child.box, child.output)]
        named += [zygote.socket] if zygote else []
        return [descriptor for descriptor in named if descriptor >= 0]


class _Version(msgspec.Struct, frozen=True):
    """What every version of the document has."""

    version: int
    protocol: str
    rqsup: str


def write(estate: Estate) -> int:
    """The document in a memfd; returns its descriptor."""
    descriptor = os.memfd_create("rqsup-estate", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(msgspec.json.encode(estate))
    return descriptor


def read(descriptor: int) -> Estate:
    """Read the document; the descriptor stays open.

    Raises:
        EstateUnfit: it is no estate that this program can take up; the message says why.
    """
    try:
        data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        _refuse_foreign(msgspec.json.decode(data, type=_Version))
        return msgspec.json.decode(data, type=Estate)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise EstateUnfit(f"the state of the running master cannot be read ({fault}): restart it instead") from fault


def settings_in(estate: Estate) -> Settings | None:
    """The settings in force; None when this program cannot read them."""
    try:
        return msgspec.json.decode(estate.settings, type=Settings)
    except msgspec.DecodeError:
        return None


def _refuse_foreign(found: _Version) -> None:
    if found.version != VERSION:
        raise EstateUnfit(
            f"rqsup {found.rqsup} runs and writes its state in version {found.version}, this program reads version {VERSION}: "
            "restart the master instead"
        )
    if found.protocol != protocol():
        raise EstateUnfit(
            f"the workers of rqsup {found.rqsup} speak {found.protocol} with their master, this program {protocol()}: "
            "restart the master instead"
        )
