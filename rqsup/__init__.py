"""rqsup: a Redis work queue that owns its worker processes. At least once, nothing lost."""

from rqsup.client import Client, Request
from rqsup.context import JobContext, current_job
from rqsup.errors import CpuLimit, JobTimeout, RqsupError
from rqsup.job import Job, JobRecord, JobState, Level
from rqsup.retry import Backoff
from rqsup.task import Task, task

__version__ = "0.1.0"

__all__ = [
    "Backoff", "Client", "CpuLimit", "Job", "JobContext", "JobRecord", "JobState", "JobTimeout", "Level", "Request", "RqsupError", "Task",
    "current_job", "task",
]  # fmt: skip
