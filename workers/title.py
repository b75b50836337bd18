"""Process titles: what `ps` tells an operator. They never hold a job's arguments."""

from __future__ import annotations

import os

# Without this, setproctitle uses the memory of /proc/PID/environ for longer titles and wipes it.
os.environ.setdefault("SPT_NOENV", "1")

from setproctitle import setproctitle


def set_title(text: str) -> None:
    """Set this process's title."""
    setproctitle(f"rqsup: {text}")


def describe_job(task: str, job_id: str, age_s: float) -> str:
    """A job in a title: task, shortened id, age.

    >>> describe_job("mail.send", "01a20055-ba34-7233-a23c-e4102238162f", 12.7)
    'mail.send 01a20055…162f 12s'
    """
    short = job_id if len(job_id) <= 16 else f"{job_id[:8]}…{job_id[-4:]}"
    return f"{task} {short} {int(age_s)}s"
