"""Which threads a process has: with more than one, a fork could copy a lock that nobody will release."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from rqsup.errors import ForkRefused

#: Links of /proc/self/task with one thread in it: a folder's own two, and the thread (proc_task_getattr in fs/proc/base.c).
LINKS_OF_ONE = 3


def other_threads() -> list[str]:
    """Names of all threads of this process but the first, sorted; C code's own threads too."""
    # The kernel counts threads as links of this folder: one question where listing them takes five.
    if os.stat("/proc/self/task").st_nlink == LINKS_OF_ONE:  # noqa: PTH116 - before each fork of a job
        return []
    own = str(os.getpid())
    tasks = [name for name in os.listdir("/proc/self/task") if name != own]  # noqa: PTH208 - before each fork of a job
    if not tasks:
        return []
    # Python's own threads have a better name than the kernel's, which is the program's for all of them.
    python = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    return sorted(python.get(task) or _kernel_name(task) for task in tasks)


def refuse_threads() -> None:
    """Check that this worker can be forked for a job.

    Raises:
        ForkRefused: a job left threads behind.
    """
    names = other_threads()
    if names:
        raise ForkRefused(
            f"a job left {len(names)} thread(s) in its worker ({', '.join(names)}), which makes a fork unsafe: "
            "end threads in the job that started them, or isolate that one"
        )


def _kernel_name(task: str) -> str:
    try:
        return Path(f"/proc/self/task/{task}/comm").read_text().strip()
    except OSError:
        # It ended meanwhile; it was there, and its name is all that is lost.
        return f"thread {task}"
