"""Tasks: the functions that jobs run, declared by a decorator and found by name."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_args, overload

from rqsup.envelope import check_name
from rqsup.job import Level
from rqsup.limits import Limits, parse_limits
from rqsup.retry import Backoff

#: Where a task's jobs run: in the worker; in a process for each job; in such a process with few rights.
Isolation = Literal["inline", "fork", "sandbox"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Task(Generic[P, R]):
    """A function that jobs can run, with the options under which they do. Still callable as itself."""

    function: Callable[P, R]
    name: str
    queue: str = "default"
    level: Level = Level.NORMAL
    #: Attempts that may end in an error before the job goes to the dead letters.
    max_attempts: int = 5
    #: Soft timeout of one attempt in seconds; None = `workers.job_timeout`.
    timeout_s: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    #: Where its jobs run (docs/isolation.md).
    isolation: Isolation = "inline"
    #: Resources that one run may take; None = no limits but the worker's.
    limits: Limits | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, without a queue."""
        return self.function(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """True for an `async def` handler."""
        return inspect.iscoroutinefunction(self.function)


#: Tasks by name. Written while the application is imported, read-only afterwards.
_registry: dict[str, Task[..., Any]] = {}


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = ...,
    queue: str = ...,
    priority: str | int | Level = ...,
    max_attempts: int = ...,
    timeout: float | None = ...,
    backoff: Backoff | None = ...,
    isolation: Isolation = ...,
    limits: Mapping[str, int] | None = ...,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: str | int | Level = Level.NORMAL,
    max_attempts: int = 5,
    timeout: float | None = None,
    backoff: Backoff | None = None,
    isolation: Isolation = "inline",
    limits: Mapping[str, int] | None = None,
) -> Any:
    """Declare a function as a task.

    Args:
        name: name on the wire; default `<module>.<function>`.
        queue: queue of its jobs.
        priority: level inside the queue, by name or number.
        max_attempts: attempts that may end in an error, 1 or more.
        timeout: soft timeout of one attempt in seconds.
        backoff: delays between attempts.
        isolation: `inline` runs its jobs in the worker, `fork` each in a process of its own, `sandbox` in
            one that may not reach files, network or other processes.
        limits: resources of one run, enforced by the kernel: `data`, `fsize` (bytes), `cpu` (seconds), `nofile`.

    Raises:
        InvalidJob: the name or the queue is outside the alphabet.
        ValueError: another function has this name, or a number is out of range.
    """

    def declare(function: Callable[..., Any]) -> Task[..., Any]:
        declared = Task(
            function=function,
            name=check_name("task name", name or f"{function.__module__}.{function.__qualname__}"),
            queue=check_name("queue name", queue),
            level=Level.parse(priority),
            max_attempts=max_attempts,
            timeout_s=timeout,
            backoff=backoff or Backoff(),
            isolation=isolation,
            limits=_parse_limits(limits, name or function.__qualname__) if limits else None,
        )
        if max_attempts < 1:
            raise ValueError(f"task {declared.name!r}: max_attempts must be 1 or more, not {max_attempts}")
        if timeout is not None and timeout <= 0:
            raise ValueError(f"task {declared.name!r}: timeout must be more than 0 s, not {timeout}")
        if isolation not in get_args(Isolation):
            known = ", ".join(get_args(Isolation))
            raise ValueError(f"task {declared.name!r}: unknown isolation {isolation!r}; choose one of {known}")
        _register(declared)
        return declared

    return declare if function is None else declare(function)


def _parse_limits(limits: Mapping[str, int], name: str) -> Limits:
    try:
        return parse_limits(limits)
    except ValueError as fault:
        raise ValueError(f"task {name!r}: {fault}") from None


def _register(declared: Task[..., Any]) -> None:
    known = _registry.get(declared.name)
    if known is not None and _origin(known) != _origin(declared):
        raise ValueError(
            f"two functions are declared as task {declared.name!r}: {_origin(known)} and {_origin(declared)}; "
            "give one of them another name"
        )
    _registry[declared.name] = declared


def _origin(declared: Task[..., Any]) -> str:
    # By name, not identity: re-importing a module declares the same function again.
    return f"{declared.function.__module__}.{declared.function.__qualname__}"


@contextlib.contextmanager
def borrowed(declared: Task[..., Any]) -> Iterator[None]:
    """Know a task, under a name that is not taken, for a while only."""
    _register(declared)
    try:
        yield
    finally:
        del _registry[declared.name]


def find_task(name: str) -> Task[..., Any] | None:
    """The task with this name, or None."""
    return _registry.get(name)


def task_names() -> list[str]:
    """Names of all declared tasks, sorted."""
    return sorted(_registry)
