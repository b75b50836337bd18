"""An operator ends a running job: its worker is killed, and the job does not come back unless asked for."""

from __future__ import annotations

import asyncio
import pwd
import time
from typing import TYPE_CHECKING, Any

from rqsup.errors import CommandRefused, RedisUnavailable
from rqsup.logs import get_logger
from rqsup.store.keys import Keys
from rqsup.supervisor.child import Child, Verdict
from rqsup.supervisor.plan import Phase

if TYPE_CHECKING:
    from rqsup.supervisor.master import Master

#: Seconds to wait until the job has its new place; Redis may be away, and then it gets there later.
SETTLED_S = 5.0
#: Pause between two looks, seconds.
LOOK_S = 0.005


async def kill_job(master: Master, job_id: str, *, uid: int, requeue: bool) -> dict[str, Any]:
    """Kill the worker that runs this job, and say what became of the job.

    No crash is charged: the job did nothing wrong. It goes to the dead letters, because an operator who
    kills a job would not see it start again a millisecond later; with `requeue` it goes back to its queue.
    What ran beside it goes back to its queue, too.

    Raises:
        CommandRefused: none of this master's workers runs it.
    """
    child = _runner_of(master, job_id) or await _runner_among_several(master, job_id)
    job = child.slot.current_job()
    user = _user_name(uid)
    seen = {id(recovery) for recovery in master.registry.recoveries}
    reason = f"killed by the operator (user {user})" + (", to run again" if requeue else "")
    get_logger("master").warning("killing a job", job_id=job_id, worker=child.number, pid=child.pid, user=user)
    verdict = Verdict(reason, charge=False, job=job_id, condemn=not requeue)
    # Where it was goes with the job: it may be why somebody ends it.
    master.pool.kill(child, verdict, ask_stack=True)
    deadline = time.monotonic() + SETTLED_S
    became = ""
    while not became and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_S)
        for recovery in master.registry.recoveries:
            if recovery.worker == child.worker and id(recovery) not in seen:
                became = "dead" if job_id in recovery.buried else "ready" if job_id in recovery.jobs else "ended before"
    return {
        "job_id": job_id, "task": job.task if job and job.id == job_id else "", "worker": child.number, "pid": child.pid,
        "became": became or "unknown",
    }  # fmt: skip


def _runner_of(master: Master, job_id: str) -> Child | None:
    for child in master.pool.children.values():
        job = child.slot.current_job()
        if job is not None and job.id == job_id:
            if child.phase is Phase.DYING:
                raise CommandRefused(f"job {job_id} is being killed already: {child.verdict and child.verdict.reason}")
            return child
    return None


async def _runner_among_several(master: Master, job_id: str) -> Child:
    """The worker that runs this job beside others: its slot shows one at a time, so the job's record tells."""
    name = ""
    if any(child.slot.jobs > 1 for child in master.pool.children.values()):
        key = Keys(master.settings.namespace).job(job_id)
        try:
            state, worker = await master.store.command("HMGET", key, "state", "worker")
        except RedisUnavailable as fault:
            raise CommandRefused(f"Redis has to tell which worker runs job {job_id!r}: {fault}") from fault
        name = worker.decode() if state == b"active" and worker else ""
    child = master.pool.children.get(name)
    if child is not None and child.slot.jobs > 1 and child.phase is not Phase.DYING:
        return child
    raise CommandRefused(
        f"no worker of this pool runs job {job_id!r} now: `rqsup admin job show` tells its state; one that waits is "
        "ended by `rqsup admin job cancel`"
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
