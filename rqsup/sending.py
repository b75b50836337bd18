"""Requests made ready to be sent. What does not change from job to job is checked and packed once.

Pure, shared by `Client`, `AsyncClient` and `Buffer`. The bytes are those of `scripts.enqueue`; packing
them by hand takes a quarter of the time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import hiredis
import msgspec

from rqsup.envelope import Envelope, check_name, encode_checked, new_id
from rqsup.errors import EnqueueError, InvalidJob, QueueFull, RedisUnavailable
from rqsup.job import LEVEL_LABELS, Level
from rqsup.request import CALL_JOBS, CHUNK_BYTES, Request
from rqsup.settings import Settings
from rqsup.store.keys import Keys
from rqsup.store.replies import is_not_ready
from rqsup.store.scripts import Script, script
from rqsup.task import Task

#: Routes remembered by one packer. Names may come from users: no memory may grow with their number.
MOST_ROUTES = 1_000
#: Largest delay, seconds (about 30 years).
LONGEST_DELAY_S = 1e9


@dataclass(frozen=True, slots=True)
class Route:
    """Where jobs of a kind go; its names are checked."""

    task: str
    queue: str
    level: str
    #: The script's arguments, with blanks for id, envelope and what follows. Names have no % in them.
    form: bytes


class Sending(msgspec.Struct, eq=False):
    """One job ready to be sent, and the id that it will have. A struct: quicker to make than a class of Python."""

    packer: Packer
    request: Request
    job_id: str
    #: The six arguments of the script that are its own, packed.
    arguments: bytes

    @property
    def script(self) -> Script:
        """The script that accepts it."""
        return self.packer.script

    @property
    def size(self) -> int:
        """Bytes that it holds in memory, but for a small constant."""
        return len(self.arguments)

    def packed(self, *, flags: bool) -> bytes:
        """The command as it goes over the wire."""
        return self.packer.heads[flags] + self.arguments + self.packer.limits

    def check_accepted(self, verdict: Any) -> None:
        """Read the script's answer.

        Raises:
            QueueFull, EnqueueError: the job was not accepted.
            RedisUnavailable: the server accepts none for now.
        """
        if verdict == b"ready":
            return
        if verdict == b"full":
            raise self.packer.full(self.request)
        if isinstance(verdict, bytes) and verdict.startswith(b"fault: "):
            raise EnqueueError(
                f"Redis refused the job, a key that has to hold it is not rqsup's: {verdict.decode(errors='replace')}"
            )
        if isinstance(verdict, hiredis.ReplyError):
            refused = RedisUnavailable if is_not_ready(verdict) else EnqueueError
            raise refused(f"Redis refused the job: {verdict}") from verdict


class Batch:
    """Jobs that one call of a script accepts, a word for each in its answer."""

    __slots__ = ("_packer", "sendings")

    def __init__(self, packer: Packer, sendings: list[Sending]) -> None:
        self._packer = packer
        self.sendings = sendings

    @property
    def script(self) -> Script:
        """The script that accepts them."""
        return self._packer.script_for_many

    def packed(self, *, flags: bool) -> bytes:
        """The command as it goes over the wire."""
        count = b"*%d\r\n" % (6 + 6 * len(self.sendings))
        jobs = [sending.arguments for sending in self.sendings]
        return b"".join((count, self._packer.heads_for_many[flags], self._packer.limits, *jobs))

    def verdicts(self, answer: Any) -> list[tuple[Sending, Any]]:
        """Each job with what the answer says of it; an error is each one's."""
        if isinstance(answer, hiredis.ReplyError):
            return [(sending, answer) for sending in self.sendings]
        return list(zip(self.sendings, answer, strict=True))


class Packer:
    """Makes requests ready, for one namespace. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        root = Keys(settings.namespace).root
        most = settings.limits.queue_length
        self.script, self.script_for_many = script("enqueue"), script("enqueue_many")
        #: What every command starts with, by whether the server knows script flags.
        self.heads = {flags: b"*12\r\n" + _head(self.script, root, flags=flags) for flags in (False, True)}
        self.heads_for_many = {flags: _head(self.script_for_many, root, flags=flags) for flags in (False, True)}
        self._payload_bytes = settings.limits.payload_bytes
        self._most = most
        #: What both scripts are told of the queues' lengths.
        self.limits = _arguments(most, ",".join(LEVEL_LABELS))
        self._now = _arguments(0, 0)
        self._routes: dict[Any, Route] = {}

    def prepare(self, request: Request) -> Sending:
        """Check a request and make it ready.

        Raises:
            InvalidJob, PayloadTooLarge: it cannot become a job.
        """
        if not isinstance(request, Request):
            raise InvalidJob(f"{request!r} is no Request: use enqueue(task, …), or send(Request(task, …))")
        route = self._route(request)
        job_id = check_name("job id", request.job_id) if request.job_id else new_id()
        envelope = Envelope(
            id=job_id,
            task=route.task,
            queue=route.queue,
            level=route.level,
            args=list(request.args),
            kwargs=request.kwargs,
            max_attempts=request.max_attempts,
            timeout_s=request.timeout,
        )
        data = encode_checked(envelope, self._payload_bytes)
        at_once = request.due_at is None and request.delay_s == 0
        end = self._now if at_once else _arguments(_due_ms(request), _delay_ms(request))
        name = job_id.encode()
        return Sending(self, request, job_id, route.form % (len(name), name, len(data), data, end))

    def batches(self, sendings: Iterable[Sending]) -> Iterator[Batch]:
        """So many jobs together as one call accepts; streams the iterable."""
        batch: list[Sending] = []
        size = 0
        for sending in sendings:
            batch.append(sending)
            size += len(sending.arguments)
            if len(batch) == CALL_JOBS or size >= CHUNK_BYTES:
                yield Batch(self, batch)
                batch, size = [], 0
        if batch:
            yield Batch(self, batch)

    def full(self, request: Request) -> QueueFull:
        """The error for a job that its queue has no room for."""
        return QueueFull(
            f"queue {self._route(request).queue!r} holds {self._most} jobs (limits.queue_length): "
            "send later, or start more workers"
        )

    def _route(self, request: Request) -> Route:
        task = request.task
        if isinstance(task, Task):
            key = (task.name, request.queue or task.queue, task.level if request.priority is None else request.priority)
        elif not isinstance(task, str):  # its words would be a name: of None, a task that no worker knows
            raise InvalidJob(f"{task!r} is no task: decorate the function with @task, or give the task's name")
        else:
            key = (
                task,
                request.queue or "default",
                Level.NORMAL if request.priority is None else request.priority,
            )
        try:
            return self._routes[key]
        except KeyError:
            return self._remember(key)
        except TypeError as fault:
            raise InvalidJob(f"queue {key[1]!r} or priority {key[2]!r} of task {key[0]!r} is no text") from fault

    def _remember(self, key: tuple[str, str, str | int | Level]) -> Route:
        if len(self._routes) >= MOST_ROUTES:
            self._routes.clear()
        self._routes[key] = route = make_route(*key)
        return route


def make_route(task: str, queue: str, priority: str | int | Level) -> Route:
    """Check where jobs are to go.

    Raises:
        InvalidJob: a name is not allowed, or the level is unknown.
    """
    try:
        # The very object that is the envelope's default: only then is it left out of the JSON.
        level = sys.intern(Level.parse(priority).label)
    except ValueError as fault:
        raise InvalidJob(str(fault)) from fault
    check_name("task name", task)
    check_name("queue name", queue)
    return Route(task, queue, level, b"$%d\r\n%b\r\n" + _arguments(queue, level) + b"$%d\r\n%b\r\n%b")


def _head(script: Script, root: str, *, flags: bool) -> bytes:
    return _arguments("EVALSHA", script.variant(flags=flags)[0], 1, root)


def _arguments(*values: str | int) -> bytes:
    packed: bytes = hiredis.pack_command(cast(Any, values))
    return packed.partition(b"\r\n")[2]


def _due_ms(request: Request) -> int:
    if request.due_at is None:
        return 0
    if request.due_at.tzinfo is None:
        raise InvalidJob("the due time has no time zone: use datetime.now(timezone.utc) or .astimezone()")
    return int(request.due_at.timestamp() * 1000)


def _delay_ms(request: Request) -> int:
    if not 0 <= request.delay_s < LONGEST_DELAY_S:
        raise InvalidJob(f"the delay must be 0 to 1e9 seconds, not {request.delay_s}")
    return round(request.delay_s * 1000)
