"""rqsup: a Redis work queue that owns its worker processes. At least once, nothing lost."""

from rqsup.async_client import AsyncClient, AsyncJob
from rqsup.buffer import Buffer
from rqsup.client import Client
from rqsup.context import JobContext, current_job
from rqsup.errors import CpuLimit, JobShutdown, JobTimeout, RqsupError
from rqsup.job import Job, JobRecord, JobState, Level
from rqsup.request import Request
from rqsup.retry import Backoff
from rqsup.task import Task, task

__version__ = "0.1.0"

__all__ = [
    "AsyncClient", "AsyncJob", "Backoff", "Buffer", "Client", "CpuLimit", "Job", "JobContext", "JobRecord", "JobShutdown", "JobState", "JobTimeout", "Level", "Request", "RqsupError", "Task",
    "current_job", "task",
]  # fmt: skip
