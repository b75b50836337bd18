"""The workers of one master: has them forked, gives them orders, kills and reaps them.

It carries out what `plan` decides and decides nothing itself. All of it runs in the master's loop;
no call blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable

import psutil

from rqsup.logs import get_logger
from rqsup.supervisor.blackbox import SILENT, BlackBox
from rqsup.supervisor.child import Child, Death, Evidence, Verdict, judge
from rqsup.supervisor.drain import Sink
from rqsup.supervisor.generation import Generation
from rqsup.supervisor.leaves import Leaves, end_all, oom_counter
from rqsup.supervisor.messages import Forked, ForkRefused
from rqsup.supervisor.oom import OomWatch
from rqsup.supervisor.patience import Patience
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.scoreboard import Scoreboard
from rqsup.supervisor.whereabouts import ask_where
from rqsup.worker_id import make_worker_id
from rqsup.workers.assignment import Assignment
from rqsup.workers.channel import LOOK, MESSAGE_BYTES, READY, UNFIT
from rqsup.workers.slot import Order


class Pool:
    """Owns the scoreboard and the children.

    `on_change` is called whenever the plan should look again, `on_ready` when a worker becomes ready,
    `on_death` when one was reaped or could not be forked. `sink` takes what jobs print.
    """

    def __init__(
        self,
        *,
        host: str,
        slots: int,
        on_change: Callable[[], None],
        on_ready: Callable[[Child], None],
        on_death: Callable[[Death], None],
        sink: Sink | None = None,
    ) -> None:
        self.board = Scoreboard(slots)
        self.children: dict[str, Child] = {}
        self.strangers = 0
        self.oom = OomWatch()
        #: Makes a cgroup for each worker; None = they share the master's.
        self.leaves: Leaves | None = None
        #: Children that are no workers, as zygotes: somebody else of the master reaps them.
        self.zygotes: set[int] = set()
        self.order = Order.WORK
        self._identity = f"{host}.{secrets.token_hex(4)}"
        self._serial = itertools.count(1)
        self._on_change = on_change
        self._on_ready = on_ready
        self._on_death = on_death
        self.sink = sink
        self._unborn = 0
        self._dumps: set[asyncio.Task[None]] = set()
        self._log = get_logger("master")

    def spawn(self, generation: Generation, *, check: str = "") -> Child | None:
        """Ask for one more worker; None when all slots are lent.

        Args:
            check: function `module:name` that it has to call before it becomes ready.
        """
        lent = self.board.lend()
        if lent is None:
            self._log.error("no slot is free for another worker")
            return None
        index, slot = lent
        slot.order = self.order
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        mine.setblocking(False)
        now = time.monotonic()
        worker = make_worker_id(self._identity, generation.number, next(self._serial))
        leaf, fault = self.leaves.make(worker) if self.leaves else ("", "")
        assignment = Assignment(
            worker=worker, slot=index, number=self._free_number(), generation=generation.number,
            master_pid=os.getpid(), check=check, mark=secrets.token_hex(8), leaf=leaf,
        )  # fmt: skip
        child = Child(
            assignment, slot, mine, now, deadline=now + generation.settings.workers.boot_timeout, box=BlackBox(),
            patience=Patience.of(generation.settings),
        )  # fmt: skip
        self.children[child.worker] = child
        self._unborn += 1
        with its:
            if fault:
                self.refused(ForkRefused(worker, fault))
                return child
            output = generation.settings.output
            if self.sink and output.capture:
                child.output = self.sink.open(assignment, slot, output)
            generation.fork(assignment, [its.fileno(), *child.descriptors()])
        if child.output:
            child.output.release()
        return child

    def forked(self, message: Forked) -> None:
        """A zygote says that a worker runs."""
        self._unborn -= 1
        child = self.children[message.worker]
        child.pid = message.pid
        self.attend(child)
        if child.verdict is not None:
            self._signal(child)

    def attend(self, child: Child) -> None:
        """Watch a worker's process and channel from now on."""
        self.children[child.worker] = child
        # It is our child, so its pid can't be another's before we have reaped it.
        child.pidfd = os.pidfd_open(child.pid)
        with contextlib.suppress(psutil.Error, OSError):
            child.started_ticks = process_start(child.pid)
        child.oom_counter = self.oom.counter_of(child.pid, oom_counter(child.assignment.leaf))
        loop = asyncio.get_running_loop()
        loop.add_reader(child.pidfd, self._reap, child)
        loop.add_reader(child.channel, self._hear, child)
        if child.output:
            child.output.listen()

    @property
    def settled(self) -> bool:
        """True while no fork is under way, and no worker is asked for its stack before it is killed."""
        return not self._unborn and not self._dumps

    def refused(self, message: ForkRefused) -> None:
        """A zygote says that it forked no worker."""
        self._unborn -= 1
        child = self.children[message.worker]
        now = time.monotonic()
        self.forget(child)
        self._on_death(Death(
            worker=child.worker, number=child.number, pid=0, generation=child.assignment.generation,
            cause=f"not forked: {message.reason}", job=None, charged=False, was_ready=False, orderly=False, seen_at=now,
        ))  # fmt: skip

    def lost(self, generation: Generation) -> None:
        """A zygote died: whatever it was asked for and did not answer will never come."""
        for child in list(self.children.values()):
            if child.pid == 0 and child.assignment.generation == generation.number:
                self.refused(ForkRefused(child.worker, "the zygote died"))

    def command(self, child: Child, order: Order) -> None:
        """Give a worker an order; it takes effect between two jobs."""
        child.slot.order = order
        self.wake(child)

    def wake(self, child: Child) -> None:
        """Have a worker look at its order, and ask Redis anew."""
        # A full channel means that it has been told to look and did not yet.
        with contextlib.suppress(OSError):
            child.channel.send(LOOK)

    def command_all(self, order: Order) -> None:
        """Give an order to all workers that stay, and to those to come."""
        self.order = order
        for child in self.children.values():
            if child.phase in {Phase.STARTING, Phase.READY}:
                self.command(child, order)

    def drain(self, child: Child, deadline: float) -> None:
        """Let a worker finish its job and leave, until the deadline."""
        child.phase = Phase.DRAINING
        child.deadline = deadline
        self.command(child, Order.LEAVE)

    def abandon(self, child: Child, deadline: float, reason: str) -> None:
        """Have a worker's job give up (JobShutdown), and the worker leave, until the deadline."""
        child.phase, child.deadline, child.abandoned = Phase.DRAINING, deadline, reason
        self.command(child, Order.ABANDON)
        # The order stands in the slot; the signal only interrupts the job so that it is seen.
        if child.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)

    def kill(self, child: Child, verdict: Verdict, *, ask_stack: bool = False) -> None:
        """End a worker and all that its job started.

        Args:
            ask_stack: first have it write down where it hangs, which takes up to 0.2 s.
        """
        child.phase = Phase.DYING
        # Noted before the signal: the death that follows has to find it. The first reason is the true one.
        child.verdict = child.verdict or verdict
        if child.pidfd < 0:
            return
        if ask_stack and child.box:
            # Should its job end just now, it shall not begin another one and take that with it.
            child.slot.order = Order.LEAVE
            task = asyncio.create_task(self._ask_and_kill(child, child.box))
            self._dumps.add(task)
            task.add_done_callback(self._dumps.discard)
        else:
            self._signal(child)

    def reap_strangers(self) -> None:
        """Reap processes that jobs left behind and the kernel gave to us, a child subreaper."""
        if self.leaves:
            self.leaves.sweep()
        if self._unborn:
            # A pid that we don't know yet may be a worker of ours.
            return
        own = {child.pid for child in self.children.values()} | self.zygotes
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None or ended.si_pid in own:
                return
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)
            self.strangers += 1

    def forget(self, child: Child) -> None:
        """Give back what was held of a worker that is gone."""
        if self.leaves and child.assignment.leaf:
            self.leaves.end(child.assignment.leaf)
        child.close()
        del self.children[child.worker]
        self.board.take_back(child.assignment.slot)
        self._on_change()

    async def _ask_and_kill(self, child: Child, box: BlackBox) -> None:
        try:
            child.stack = await ask_where(child, box) or SILENT
        finally:
            # Whatever became of the question, the worker ends. Unless it has: then it is reaped, and the pidfd closed.
            if child.pidfd >= 0:
                self._signal(child)

    def _signal(self, child: Child) -> None:
        end_all(child.assignment.leaf)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def _hear(self, child: Child) -> None:
        try:
            data = child.channel.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # The process ended or closed everything it had; the pidfd tells which.
            asyncio.get_running_loop().remove_reader(child.channel)
        elif data.startswith(UNFIT):
            child.unfit = data.removeprefix(UNFIT).decode("utf-8", "replace")
        elif READY in data and child.phase is Phase.STARTING:
            child.phase, child.deadline, child.was_ready = Phase.READY, None, True
            self._on_ready(child)
            self._on_change()

    def _reap(self, child: Child) -> None:
        seen_at = time.monotonic()
        ended = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        # While the zombie holds the pid, the group of that number is the worker's: end what its job left in it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.slot.job_group > 1:
            # An isolated job has died with its worker; what it started is in a group of its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.slot.job_group, signal.SIGKILL)
        _, _, usage = os.wait4(child.pid, 0)
        # Its last words may have come together with its death.
        self._hear(child)
        death = judge(child, ended, seen_at, self._evidence(child, ended, usage.ru_maxrss * 1024))
        loop = asyncio.get_running_loop()
        loop.remove_reader(child.pidfd)
        loop.remove_reader(child.channel)
        self.forget(child)
        self._on_death(death)

    def _evidence(self, child: Child, ended: os.waitid_result, peak_bytes: int) -> Evidence:
        """What a dead worker left behind."""
        killed = child.verdict is None and ended.si_code != os.CLD_EXITED and ended.si_status == signal.SIGKILL
        return Evidence(
            stack=child.stack or (child.box.last_words() if child.box else ""),
            oom=self.oom.explains(child.oom_counter) if killed else None,
            peak_bytes=peak_bytes,
        )

    def _free_number(self) -> int:
        taken = {child.number for child in self.children.values()}
        return next(number for number in itertools.count(1) if number not in taken)


def process_start(pid: int) -> int:
    """Start time of a process in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).

    Raises:
        OSError: there is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - read on each death and beat
        return int(file.read().rpartition(b")")[2].split()[19])


def host_name() -> str:
    """This machine's name in the alphabet of worker ids."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:40] or "host"
