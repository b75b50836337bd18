"""Where the workers are right now: the stacks of their threads, without disturbing them."""

from __future__ import annotations

import asyncio
from typing import Any

from rqsup.errors import CommandRefused
from rqsup.supervisor.blackbox import SILENT
from rqsup.supervisor.child import Child
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.pool import Pool
from rqsup.supervisor.whereabouts import ask_where
from rqsup.workers.blackbox import shorten

#: Characters of all stacks together: the answer has to fit into one line of the control protocol.
ANSWER_CHARS = 4 << 20


async def take_stacks(pool: Pool, pid: int | None) -> list[dict[str, Any]]:
    """The stacks of one worker or of all, each with the job it is in; the workers go on.

    Raises:
        CommandRefused: no worker has this pid.
    """
    children = sorted(pool.children.values(), key=lambda child: child.number)
    asked = [child for child in children if child.pidfd >= 0 and pid in {None, child.pid, child.slot.job_group}]
    if pid is not None and not asked:
        raise CommandRefused(f"no worker has pid {pid!r}: see `rqsup status`")
    most = ANSWER_CHARS // max(1, len(asked))
    return list(await asyncio.gather(*(_take(child, most) for child in asked)))


async def _take(child: Child, most: int) -> dict[str, Any]:
    job = child.slot.current_job()
    facts = {
        "number": child.number, "pid": child.pid, "state": child.state(),
        "task": job.task if job else None, "job_id": job.id if job else None, "job_pid": child.slot.job_group or None,
    }  # fmt: skip
    if child.phase is Phase.DYING:
        # It is asked already, and about to be killed.
        return facts | {"stack": child.stack or SILENT}
    text = await ask_where(child, child.box) if child.box else ""
    return facts | {"stack": shorten(text, most) or SILENT}
