"""rqsup: a Redis work queue that owns its worker processes. At least once, nothing lost."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rqsup.context import JobContext, current_job
from rqsup.errors import CpuLimit, JobShutdown, JobTimeout, RqsupError
from rqsup.job import Job, JobRecord, JobState, Level
from rqsup.request import Request
from rqsup.retry import Backoff
from rqsup.task import Task, task

if TYPE_CHECKING:
    from rqsup.async_client import AsyncClient, AsyncJob
    from rqsup.client import Client

__version__ = "0.1.0"

__all__ = [
    "AsyncClient", "AsyncJob", "Backoff", "Client", "CpuLimit", "Job", "JobContext", "JobRecord", "JobShutdown", "JobState", "JobTimeout", "Level", "Request", "RqsupError", "Task",
    "current_job", "task",
]  # fmt: skip

#: Where the clients are. They are loaded when they are first asked for: redis-py takes 7 MB, which a master never needs.
_LATER = {"AsyncClient": "rqsup.async_client", "AsyncJob": "rqsup.async_client", "Client": "rqsup.client"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LATER[name]), name)
    return found
