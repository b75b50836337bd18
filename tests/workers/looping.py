"""A worker's loop in a thread, and a test that plays its master."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from mmap import mmap

import msgspec

from rqsup import Client
from rqsup.errors import RedisUnavailable
from rqsup.logs import get_logger
from rqsup.settings import RedisSettings, Settings
from rqsup.store import scripts
from rqsup.store.wire import Wire
from rqsup.workers.alarm import Alarm
from rqsup.workers.channel import LOOK, Channel
from rqsup.workers.loop import SCRIPTS, Loop
from rqsup.workers.run import Place, Runner
from rqsup.workers.slot import STRIDE, Order, WorkerState, slot_at
from tests.waiting import wait_until


class StillAlarm(Alarm):
    """An alarm without a timer: signals belong to the main thread, which is the test's."""

    def arm(self, task: str, job_id: str, timeout_s: float) -> None:
        """Watch nothing."""

    def disarm(self) -> None:
        """Nothing is watched."""

    def show(self, state: str) -> None:
        """The title is the test runner's."""


class LoopThread:
    """Runs a Loop, named `w`, until told to leave; `fault` is what it raised."""

    def __init__(self, client: Client, *, socket_timeout: float = 1.0, **workers: object) -> None:
        self.client = client
        self.slot = slot_at(mmap(-1, STRIDE), 0)
        self.fault: BaseException | None = None
        settings = Settings(
            namespace=client.settings.namespace,
            redis=RedisSettings(url=client.settings.redis.url, socket_timeout=socket_timeout),
            workers=msgspec.convert(
                {"block_timeout": 0.3, "queues": ["default"], **workers}, type(client.settings.workers)
            ),
        )
        self._master, its = socket.socketpair()
        channel = Channel(its.detach())
        alarm, log = StillAlarm("worker 1 [mail] gen 2", lambda: False), get_logger("worker")
        runner = Runner(
            settings=settings, place=Place("w", 1, "h", os.getpid(), 1), slot=self.slot, alarm=alarm, log=log
        )
        self._loop = Loop(
            settings=settings, worker="w", slot=self.slot, channel=channel,
            wire=Wire(settings.redis, name="rqsup-worker-w", scripts=SCRIPTS), runner=runner, alarm=alarm, log=log,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._loop.run()
        except BaseException as fault:  # noqa: BLE001 - told by the test
            self.fault = fault

    def start(self, *, register: bool = True) -> LoopThread:
        if register:
            self.beat()
        self._thread.start()
        return self

    def beat(self) -> None:
        """What the master does for a living worker."""
        self.client.store.run(scripts.heartbeat(self.client.keys.root, ttl_ms=60_000, details={"w": b"{}"}))

    def order(self, order: Order) -> None:
        self.slot.order = order
        self._master.send(LOOK)

    def vanish(self) -> None:
        """End the master."""
        self._master.close()

    def until_state(self, state: WorkerState) -> None:
        wait_until(lambda: self.slot.state == state, what=f"the worker to be {state.name}")

    def until_waiting(self) -> None:
        """Until the worker blocks in its inbox."""

        def waits() -> bool:
            with contextlib.suppress(RedisUnavailable):
                return any(
                    one["name"] == "rqsup-worker-w" and "b" in one["flags"]
                    for one in self.client.store.client.client_list()
                )
            return False

        wait_until(waits, what="the worker to block")

    def cut_connection(self) -> None:
        """Have Redis close it, as a proxy would."""
        redis = self.client.store.client
        for one in redis.client_list():
            if one["name"] == "rqsup-worker-w":
                redis.client_kill_filter(_id=one["id"])

    def join(self) -> None:
        """Wait for the loop's end; raise what it raised."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.fault:
            raise self.fault

    def leave(self) -> None:
        self.order(Order.LEAVE)
        self.join()
