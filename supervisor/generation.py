"""One generation of code and configuration, as the master sees it: its zygote process and what it can fork."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from rqsup.errors import AppImportError
from rqsup.logs import get_logger
from rqsup.settings import Settings
from rqsup.supervisor.estate import GenerationEstate
from rqsup.supervisor.messages import (
    MESSAGE_BYTES,
    Forked,
    ForkRefused,
    ForkWorker,
    Prepare,
    Prepared,
    PrepareFailed,
    decode,
    encode,
)  # fmt: skip
from rqsup.workers.assignment import Assignment
from rqsup.workers.isolation.protection import Protection
from rqsup.workers.protocol import protocol

#: Seconds that a zygote has to end after its socket was closed.
FAREWELL_S = 2.0
#: Characters of an import error that fit into its first line.
CAUSE_CHARS = 200


class Generation:
    """A zygote process and the settings it runs under.

    `on_forked`, `on_refused` and `on_lost` are called from the loop: a worker runs, a fork was refused,
    the zygote itself is gone, `closed` or not, and answers nothing any more.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        *,
        on_forked: Callable[[Forked], None],
        on_refused: Callable[[ForkRefused], None],
        on_lost: Callable[[Generation], None],
        zygotes: set[int],
    ) -> None:
        self.number = number
        self.settings = settings
        self.tasks: list[str] = []
        self.protections: list[Protection] = []
        self.ready = False
        #: It was told to end.
        self.closed = False
        self._on_forked = on_forked
        self._on_refused = on_refused
        self._on_lost = on_lost
        self._zygotes = zygotes
        self.pid = 0
        self._prepared: asyncio.Future[Prepared] | None = None
        self._socket: socket.socket | None = None
        self._pidfd = -1
        self._gone = asyncio.Event()
        self._log = get_logger("master").bind(generation=number)

    async def prepare(self, scoreboard: int) -> None:
        """Start the zygote and wait until it has imported the application.

        Args:
            scoreboard: descriptor of the shared memory.

        Raises:
            AppImportError: the import failed or took longer than `workers.boot_timeout`.
        """
        loop = asyncio.get_running_loop()
        self._prepared = loop.create_future()
        self._launch(scoreboard)
        timeout_s = self.settings.workers.boot_timeout
        try:
            async with asyncio.timeout(timeout_s):
                prepared = await self._prepared
        except TimeoutError:
            self.close()
            raise AppImportError(
                f"importing {', '.join(self.settings.app)} took more than {timeout_s:g} s (workers.boot_timeout)"
            ) from None
        except BaseException:
            self.close()
            raise
        if prepared.protocol != protocol():
            self.close()
            raise AppImportError(
                f"the rqsup that is installed now speaks {prepared.protocol} with its workers, this master {protocol()}: "
                "go over to it with `rqsup upgrade`, or restart the master"
            )
        self.tasks, self.ready = prepared.tasks, True
        self.protections = prepared.protections
        self._log.info("application imported", tasks=len(prepared.tasks), seconds=round(prepared.seconds, 3))
        if not prepared.tasks:
            self._log.warning("the application declares no task, so each job is buried: name its modules in `app`")

    @property
    def descriptor(self) -> int:
        """The socket to the zygote; negative = it is gone."""
        return self._socket.fileno() if self._socket else -1

    def inherit(self, left: GenerationEstate) -> None:
        """Go on with the zygote that the program before this one started."""
        self.tasks, self.protections, self.ready = left.tasks, left.protections, True
        mine = socket.socket(fileno=left.socket)
        mine.setblocking(False)
        self._attend(left.pid, mine)

    def fork(self, assignment: Assignment, descriptors: list[int]) -> None:
        """Ask the zygote for a worker; `on_forked` or `on_refused` tells what came of it.

        Args:
            descriptors: what the worker gets, in this order: channel, black box, output pipe if there is one.
        """
        if self._socket is None or self.closed:
            self._on_refused(ForkRefused(assignment.worker, "the zygote is gone"))
            return
        try:
            socket.send_fds(self._socket, [encode(ForkWorker(assignment))], descriptors)
        except OSError as fault:
            self._on_refused(ForkRefused(assignment.worker, f"the zygote does not answer: {fault}"))

    def kill(self) -> None:
        """End the zygote by force; `on_lost` follows unless it was closed."""
        if self._pidfd >= 0:
            # With its group: a fork that hangs half done, in a hook of the application, is nobody else's to end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """End the zygote. Its workers go on: they are the master's children.

        What it was asked for before, it still answers: a worker whose pid were never told could not be reaped.
        """
        self.ready = False
        if self._socket is not None and not self.closed:
            self.closed = True
            self._socket.shutdown(socket.SHUT_WR)
            # Its end of the socket tells it to leave; one that hangs in the application's import does not look.
            asyncio.get_running_loop().call_later(FAREWELL_S, self.kill)

    async def farewell(self) -> None:
        """End the zygote and wait until it is reaped: a master that ends must not leave a zombie."""
        self.close()
        try:
            async with asyncio.timeout(2 * FAREWELL_S):
                await self._gone.wait()
        except TimeoutError:
            self._log.error("the zygote does not end")

    def _launch(self, scoreboard: int) -> None:
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        with its:
            command = [sys.executable, "-m", "rqsup.supervisor.zygote", str(its.fileno()), str(scoreboard)]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(its.fileno(), scoreboard), start_new_session=True
            )
        # The loop reaps it through the pidfd; Popen must neither wait nor complain.
        process.returncode = 0
        self._attend(process.pid, mine)
        mine.send(encode(Prepare(self.settings, self.number, os.getpid())))

    def _attend(self, pid: int, mine: socket.socket) -> None:
        self.pid, self._socket = pid, mine
        self._zygotes.add(pid)
        self._pidfd = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(mine, self._read)
        loop.add_reader(self._pidfd, self._reap)

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # The zygote closed its end; `_reap` follows and tells why.
            asyncio.get_running_loop().remove_reader(self._socket)
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        message = decode(data)
        match message:
            case Prepared() if self._prepared and not self._prepared.done():
                self._prepared.set_result(message)
            case PrepareFailed() if self._prepared and not self._prepared.done():
                self._prepared.set_exception(_import_error(message.reason))
            case Forked():
                self._on_forked(message)
            case ForkRefused():
                self._on_refused(message)
            case _:
                self._log.error("unexpected message from the zygote", message=type(message).__name__)

    def _reap(self) -> None:
        while self._socket is not None and self._has_message():
            self._read()
        try:
            ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
            how = f"status {ended.si_status}" if ended else "no status"
        except ChildProcessError:
            # Somebody reaped it before us. The reader has to go all the same, or it would fire for ever.
            how = "status unknown"
        self._zygotes.discard(self.pid)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._gone.set()
        self.ready = False
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._prepared and not self._prepared.done():
            self._prepared.set_exception(AppImportError(f"the zygote ended while it imported the application ({how})"))
        else:
            self._on_lost(self)

    def _has_message(self) -> bool:
        if self._socket is None:
            return False
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False


def _import_error(trace: str) -> AppImportError:
    cause = trace.strip().splitlines()[-1][:CAUSE_CHARS]
    return AppImportError(
        f"the application cannot be imported ({cause}): correct the module, or `app` in the configuration\n{trace}"
    )
