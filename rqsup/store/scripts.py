"""Every script, one Python function each: arguments in, a typed answer out.

A function returns a `Call`, which says what to send and how to read the reply, and sends nothing
itself. So the blocking client, the asyncio master and the worker's own connection share one
definition of each operation, and none is written twice.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar, cast

import hiredis
import msgspec

try:
    # As the standard library's random takes its hash: hashlib loads OpenSSL, 2 MB that nothing else needs in a worker without TLS.
    from _sha1 import sha1  # type: ignore[import-not-found,unused-ignore]  # pyright: ignore[reportMissingImports]  # typeshed has no private modules
except ImportError:
    from hashlib import sha1

from rqsup.job import LEVEL_LABELS

T = TypeVar("T")
Argument = str | int | float | bytes

#: First server version whose scripts may carry flags; older ones run them without.
FLAGS_SINCE = (7, 0)


@dataclass(frozen=True, slots=True)
class Script:
    """One `.lua` file with what it uses, ready for a server with or without script flags."""

    name: str
    source: str
    plain_source: str
    sha: str
    plain_sha: str

    def variant(self, *, flags: bool) -> tuple[str, str]:
        """(sha, source) for a server that knows script flags, or one that does not."""
        return (self.sha, self.source) if flags else (self.plain_sha, self.plain_source)


@cache
def script(name: str) -> Script:
    """Load a script by the name of its file."""
    text = _read(name)
    uses = re.search(r"^-- Uses: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^-- Flags: ([a-z-]+)", text, re.MULTILINE)
    parts = [_read(f"_{part}") for part in (uses.group(1).split() if uses else [])]
    plain = "\n".join([*parts, text])
    # A shebang without flags turns on stricter checks in Redis 7: undeclared commands fail early.
    full = f"#!lua flags={flags.group(1)}\n{plain}" if flags else plain
    return Script(name, full, plain, _sha(full), _sha(plain))


def _read(name: str) -> str:
    # Not by importlib.resources, which imports half a megabyte for temporary files.
    data = pkgutil.get_data("rqsup.store", f"lua/{name}.lua")
    if data is None:
        raise FileNotFoundError(f"the script {name}.lua is missing in rqsup's installation: install it again")
    return data.decode()


def _sha(source: str) -> str:
    return str(sha1(source.encode(), usedforsecurity=False).hexdigest())


#: Every script, in the order of a job's life.
NAMES = (
    "enqueue", "enqueue_many", "claim", "begin", "settle", "heartbeat", "recover", "promote", "cancel", "replay", "purge_dead", "locate", "survey",
    "gauge", "holding",
)  # fmt: skip


#: Arguments of `enqueue` that are the job's own.
JOB_ARGUMENTS = 6
_LEVELS = ",".join(LEVEL_LABELS)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One script with its arguments, and the function that reads its reply."""

    script: Script
    root: str
    arguments: tuple[Argument, ...]
    decode: Callable[[Any], T]

    def command(self, *, flags: bool) -> tuple[Argument, ...]:
        """The Redis command to send."""
        return ("EVALSHA", self.script.variant(flags=flags)[0], 1, self.root, *self.arguments)

    def packed(self, *, flags: bool) -> bytes:
        """The command as it goes over the wire."""
        packed: bytes = hiredis.pack_command(cast(Any, self.command(flags=flags)))
        return packed


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """One job in a worker's hands. A struct, as a Settlement is: a frozen dataclass takes eight times as long to make."""

    id: str
    token: int
    #: Attempts that ended in an error, and workers that died in it.
    errors: int
    crashes: int
    envelope: bytes

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1; handing a job back does not count."""
        return self.errors + self.crashes + 1


@dataclass(frozen=True, slots=True)
class Claim:
    """Answer of `claim`: the jobs, and keys that have a wrong type."""

    jobs: list[Claimed]
    faults: list[str]
    registered: bool = True


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """How one attempt ended; what `payload` and `number` mean is in settle.lua."""

    id: str
    token: int
    outcome: str
    payload: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Answer of `settle`: a verdict for each attempt, and the jobs claimed next."""

    verdicts: list[str]
    jobs: list[Claimed]
    faults: list[str]


@dataclass(frozen=True, slots=True)
class Recovery:
    """Answer of `recover`; `alive` means that the worker beat again and nothing changed."""

    alive: bool
    returned: list[str]
    buried: list[str]
    left: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """Answer of `promote`; `wait_ms` is None when nothing is scheduled."""

    moved: int
    wait_ms: int | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Answer of `gauge`: ready jobs, and for how long the oldest has waited (0 = none waits)."""

    waiting: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Location:
    """What a job's record says, and (from `locate`, not from `survey`) every place that holds its id."""

    state: str
    worker: str
    lane: str
    #: As PTTL: -1 = the record does not expire, -2 = there is none.
    ttl_ms: int
    places: list[str]


def enqueue(
    root: str, *, job_id: str, queue: str, level: str, envelope: bytes, due_ms: int = 0, delay_ms: int = 0,
    max_length: int = 0,
) -> Call[str]:  # fmt: skip
    """Accept one job; answers 'ready', 'scheduled', 'exists', 'full' or 'fault: …'."""
    arguments = (job_id, queue, level, envelope, due_ms, delay_ms, max_length, _LEVELS)
    return Call(script("enqueue"), root, arguments, _text)


def enqueue_many(root: str, calls: Sequence[Call[str]], *, max_length: int = 0) -> Call[list[str]]:
    """What many calls of `enqueue` would do, as one; answers a word for each."""
    jobs = (argument for call in calls for argument in call.arguments[:JOB_ARGUMENTS])
    return Call(script("enqueue_many"), root, (max_length, _LEVELS, *jobs), _texts)


def claim(
    root: str, *, worker: str, count: int, lanes: Sequence[str], queues: Sequence[str], resume: bool, wait: bool,
    in_hand: Iterable[str] = (),
) -> Call[Claim]:  # fmt: skip
    """Take up to `count` jobs for a worker; `resume` leaves those alone that it has in hand."""
    held = _raw(",".join(in_hand))
    arguments: tuple[Argument, ...] = (worker, count, int(resume), int(wait), held, len(lanes), *lanes, *queues)
    return Call(script("claim"), root, arguments, _read_claim)


def begin(root: str, *, worker: str) -> Call[Claim]:
    """Begin what was handed to a waiting worker: sent behind its BLMOVE, it saves a round trip."""
    return Call(script("begin"), root, (worker,), _read_claim)


def settle(
    root: str, *, worker: str, settlements: Iterable[Settlement], count: int = 0, lanes: Sequence[str] = ()
) -> Call[Settled]:
    """End attempts, and claim up to `count` jobs."""
    ended: list[Argument] = []
    for one in settlements:
        ended += (_raw(one.id), one.token, one.outcome, one.payload, one.number)
    return Call(script("settle"), root, (worker, count, len(lanes), *lanes, *ended), _read_settled)


def heartbeat(root: str, *, ttl_ms: int, details: dict[str, bytes]) -> Call[list[str]]:
    """Renew the registry entries of workers; answers the ids that were not registered."""
    pairs: list[Argument] = []
    for worker, detail in details.items():
        pairs += (worker, detail)
    return Call(script("heartbeat"), root, (ttl_ms, *pairs), _texts)


def recover(
    root: str, *, worker: str, cause: bytes, beat: str = "", charged: str = "", crash_limit: int = 3, limit: int = 500,
    evidence: bytes = b"", condemned: str = "", suspects: bool = False,
) -> Call[Recovery]:  # fmt: skip
    """Return a dead worker's jobs; call again until `left` is 0."""
    arguments = (
        worker, beat, limit, cause, _raw(charged), crash_limit, evidence or cause, _raw(condemned), int(suspects)
    )  # fmt: skip
    return Call(script("recover"), root, arguments, _read_recovery)


def promote(root: str, *, limit: int = 500) -> Call[Promotion]:
    """Move due jobs to their queues."""
    return Call(script("promote"), root, (limit,), lambda r: Promotion(r[0], None if r[1] < 0 else r[1]))


def cancel(root: str, *, job_id: str, ttl_ms: int) -> Call[str]:
    """Cancel a job; answers 'cancelled', 'missing', or the state that forbids it."""
    return Call(script("cancel"), root, (_raw(job_id), ttl_ms), _text)


def replay(root: str, *, job_id: str) -> Call[str]:
    """Put a dead job back; answers 'ready', 'missing' or 'unreadable'."""
    return Call(script("replay"), root, (_raw(job_id),), _text)


def purge_dead(root: str, *, limit: int = 500) -> Call[int]:
    """Delete the oldest dead letters; answers how many."""
    return Call(script("purge_dead"), root, (limit,), int)


def locate(root: str, *, job_id: str, lanes: Sequence[str], workers: Sequence[str]) -> Call[Location]:
    """Find every place that holds a job."""
    arguments: tuple[Argument, ...] = (_raw(job_id), len(lanes), *lanes, *workers)
    return Call(script("locate"), root, arguments, _read_location)


def survey(root: str, *, job_ids: Sequence[str]) -> Call[list[Location]]:
    """Read what the state checker compares, for many jobs."""
    return Call(script("survey"), root, tuple(map(_raw, job_ids)), lambda rows: [_read_location(row) for row in rows])


def gauge(root: str, *, lanes: Sequence[str]) -> Call[Backlog]:
    """Measure how long jobs wait."""
    return Call(script("gauge"), root, tuple(lanes), lambda reply: Backlog(reply[0], reply[1]))


def holding(root: str, *, workers: Sequence[str]) -> Call[list[str]]:
    """Find the workers that have jobs in their hands."""
    return Call(script("holding"), root, tuple(workers), _texts)


def _raw(job_id: str) -> bytes:
    # Foreign bytes may lie in a list that anybody can push to: they must survive both ways.
    return job_id.encode("utf-8", "surrogateescape")


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _texts(values: Iterable[bytes | str]) -> list[str]:
    return [_text(value) for value in values]


def _read_jobs(rows: Iterable[Sequence[Any]]) -> list[Claimed]:
    return [Claimed(_text(row[0]), row[1], row[2], row[3], row[4]) for row in rows]


def _read_claim(reply: Sequence[Any]) -> Claim:
    if _text(reply[0]) == "unregistered":
        return Claim([], [], registered=False)
    return Claim(_read_jobs(reply[1]), _texts(reply[2]))


def _read_settled(reply: Sequence[Any]) -> Settled:
    return Settled(_texts(reply[0]), _read_jobs(reply[1]), _texts(reply[2]))


def _read_recovery(reply: Sequence[Any]) -> Recovery:
    if _text(reply[0]) == "alive":
        return Recovery(alive=True, returned=[], buried=[], left=0)
    return Recovery(alive=False, returned=_texts(reply[1]), buried=_texts(reply[2]), left=reply[3])


def _read_location(reply: Sequence[Any]) -> Location:
    state, worker, lane = _texts(reply[:3])
    return Location(state, worker, lane, reply[3], _texts(reply[4:]))
