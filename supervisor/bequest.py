"""Both ends of an upgrade's state: what a master leaves, and how the program in its place takes it up.

One function for each part, side by side with its counterpart, so that a field added to one is not
forgotten in the other.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import msgspec

from rqsup import __version__
from rqsup.errors import EstateUnfit
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.supervisor import estate
from rqsup.supervisor.blackbox import BlackBox
from rqsup.supervisor.child import Child
from rqsup.supervisor.estate import ChildEstate, ClockEstate, Estate, MasterEstate, PoolEstate, PortsEstate
from rqsup.supervisor.output import Remains
from rqsup.supervisor.patience import Patience
from rqsup.supervisor.upkeep.debt import Debt
from rqsup.workers.protocol import protocol

if TYPE_CHECKING:
    from rqsup.supervisor.master import Master
    from rqsup.supervisor.pool import Pool
    from rqsup.supervisor.upgrade import Ports


def bequeath(master: Master, ports: PortsEstate, wait: str | None) -> Estate:
    """Everything that the next program needs, as it is now; nothing may happen between this and the exec."""
    return Estate(
        version=estate.VERSION, protocol=protocol(), rqsup=__version__,
        settings=msgspec.Raw(msgspec.json.encode(master.settings)), at=time.monotonic(),
        master=_leave_master(master), pool=_leave_pool(master.pool), rollout=master.rollout.bequeath(),
        registry=master.registry.bequeath(), ports=ports, wait=wait,
    )  # fmt: skip


async def take_over(master: Master, ports: Ports, left: Estate) -> None:
    """Go on where the program before this one stopped; clients are served when all is in place.

    Raises:
        EstateUnfit: that is not possible, and there is no way back.
    """
    try:
        _inherit(master, left)
        await ports.control.go_on(left.ports.control, left.ports.lock)
        await ports.http.go_on(left.ports.http)
    except Exception as fault:  # whatever it is, workers that nobody watches must not stay
        raise EstateUnfit(f"the state of the program before this one cannot be taken up ({fault!r})") from fault


def _inherit(master: Master, left: Estate) -> None:
    _take_pool(master, left.pool)
    master.rollout.inherit(master.pool, left.rollout)
    master.registry.inherit(left.registry)
    _take_master(master, left.master)
    master.metrics_address = left.ports.metrics_address
    # The loop stood still from then on. Nobody is killed for what came to be late, before the loop has heard of it.
    master.stall.awake_at, now = left.at, time.monotonic()
    master.stall.pardon_until = max(master.stall.pardon_until, now + (now - left.at))


def _leave_master(master: Master) -> MasterEstate:
    clock = master.clock
    return MasterEstate(
        started_at=master.started_at, quiet=master.quiet, clock=ClockEstate(clock.turns, clock.longest_s, clock.slow), told_ready=master.told_ready,
        pardon_until=master.stall.pardon_until, counters=dict(master.counters), scaled_to=master.staffing.scaled_to,
        course=master.staffing.autoscaler.course, shedding=master.shedder.reason, redis_fault=master.store.fault,
    )  # fmt: skip


def _take_master(master: Master, left: MasterEstate) -> None:
    master.started_at, master.quiet, clock = left.started_at, left.quiet, left.clock
    master.clock.turns, master.clock.longest_s, master.clock.slow = clock.turns, clock.longest_s, clock.slow
    master.told_ready, master.stall.pardon_until = left.told_ready, left.pardon_until
    master.counters.update(left.counters)
    master.staffing.scaled_to, master.staffing.autoscaler.course = left.scaled_to, left.course
    master.shedder.reason, master.store.fault = left.shedding, left.redis_fault


def _leave_pool(pool: Pool) -> PoolEstate:
    return PoolEstate(
        scoreboard=pool.board.descriptor, folded=pool.board.folded, order=pool.order, strangers=pool.strangers,
        oom=pool.oom.bequeath(), children=[_leave_child(child) for child in pool.children.values()],
    )  # fmt: skip


def _take_pool(master: Master, left: PoolEstate) -> None:
    pool = master.pool
    pool.board.inherit(left.scoreboard, left.folded, [child.assignment.slot for child in left.children])
    pool.order, pool.strangers = left.order, left.strangers
    pool.oom.inherit(left.oom)
    for one in left.children:
        child = _take_child(one, pool, master.settings)
        try:
            pool.attend(child)
        except ProcessLookupError:
            # Unheard of, as only this process could have reaped it. But its jobs must not be lost for that.
            get_logger("master").error("a worker ended unseen during the upgrade", worker=child.number, pid=child.pid)
            pool.forget(child)
            cause = "ended unseen during an upgrade"
            master.registry.add(Debt(child.worker, child.number, child.pid, cause, "", time.monotonic()))


def _leave_child(child: Child) -> ChildEstate:
    return ChildEstate(
        assignment=child.assignment, pid=child.pid, channel=child.channel.fileno(),
        box=child.box.descriptor if child.box else -1, phase=child.phase, forked_at=child.forked_at,
        deadline=child.deadline, started_ticks=child.started_ticks, verdict=child.verdict, abandoned=child.abandoned,
        unfit=child.unfit, was_ready=child.was_ready, luck=child.luck, memory=child.memory, worn=child.worn,
        stack=child.stack, output=child.output.descriptor if child.output else -1,
        output_left=child.output.remains() if child.output else Remains(),
    )  # fmt: skip


def _take_child(left: ChildEstate, pool: Pool, settings: Settings) -> Child:
    slot = pool.board.slot(left.assignment.slot)
    output = None
    if pool.sink and left.output >= 0:
        output = pool.sink.resume(left.assignment, slot, left.output, left.output_left)
    channel = socket.socket(fileno=left.channel)
    channel.setblocking(False)
    return Child(
        left.assignment, slot, channel, left.forked_at, phase=left.phase, deadline=left.deadline, pid=left.pid,
        started_ticks=left.started_ticks, verdict=left.verdict, abandoned=left.abandoned, unfit=left.unfit,
        was_ready=left.was_ready, luck=left.luck, memory=left.memory, worn=left.worn, stack=left.stack,
        box=BlackBox(left.box) if left.box >= 0 else None, output=output, patience=Patience.of(settings),
    )  # fmt: skip
