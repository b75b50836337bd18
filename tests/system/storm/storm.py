"""The storm: actions one after the other, under load and under watch; then everything is counted."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rqsup import Client
from rqsup.check import check
from rqsup.errors import MasterUnreachable, RqsupError
from tests.system.daemon import APPS, Daemon, stats
from tests.system.storm.actions import draw
from tests.system.storm.gauges import Holdings, living_in, read_holdings
from tests.system.storm.load import Load
from tests.system.storm.operator import LIMIT_S, Operator, Pause
from tests.system.storm.promise import HEAL_S, Promise, Sample

#: Seconds between two samples.
SAMPLE_S = 0.03
#: Workers in the configuration; a reload, scale and recycling go on around this number.
WORKERS = 4
#: Actions between two looks at what the master holds.
LOOK_EVERY = 25
#: The log line of a turn of 50 ms and more.
SLOW_TURN = "one turn of the master's loop took long"


@dataclass(slots=True)
class Outcome:
    """What a storm came to."""

    seed: int
    actions: dict[str, int] = field(default_factory=dict)
    #: What is wrong, each with the number of the action after which it was seen; empty = every promise was kept.
    wrong: list[str] = field(default_factory=list)
    samples: int = 0
    accepted: int = 0
    ended: int = 0
    dead: int = 0
    #: Seconds until the pool was whole again, after each action that was waited for.
    heal_s: list[float] = field(default_factory=list)
    #: What the master held at quiet moments of its last life.
    holdings: list[Holdings] = field(default_factory=list)
    #: Turns of 50 ms and more while nobody had stopped the master: seconds, and seconds on the CPU.
    slow_turns: list[tuple[float, float]] = field(default_factory=list)
    longest_turn_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        """For a report."""
        told = asdict(self)
        ordered = sorted(told.pop("heal_s")) or [0.0]
        held = told.pop("holdings")
        return told | {
            "heal_median_s": round(ordered[len(ordered) // 2], 3), "heal_max_s": round(ordered[-1], 3),
            "holdings_first": next(iter(held), None), "holdings_last": next(reversed(held), None),
        }  # fmt: skip


class Storm:
    """One run over a master of its own."""

    def __init__(self, url: str, namespace: str, *, seed: int, tell: Callable[[str], None]) -> None:
        self.daemon = Daemon(
            url, namespace, app=["probe", "whim"], canary={"check": "whim:check"}, log={"format": "json", "level": "info"},
            # No death shall bury a job, nor a worker leave for a job's last try: what is missing was killed.
            workers={"count": WORKERS, "max_jobs": 400, "crash_limit": 1000, "drain_timeout": 20, "lease_ttl": 5},
        )  # fmt: skip
        app = self.daemon.folder / "app"
        shutil.copytree(APPS, app, ignore=shutil.ignore_patterns("__pycache__"))
        self.outcome = Outcome(seed)
        self._tell = tell
        self._promise = Promise()
        self._lock = threading.Lock()
        self._latest = Sample(0, 0, 0, "", set())
        self._over = threading.Event()
        self._number = 0
        self._stocked = 0
        #: Orders that the promise was told of.
        self._notes = 0
        self.operator = Operator(
            self.daemon, app / "whim.py", before_kill=self._note_kill, before_scale=self._note_scale
        )

    def run(self, client: Client, actions: int) -> Outcome:
        """Start the pool, let the storm go over it, and count."""
        self.daemon.start(path=self.operator.module.parent)
        load = Load(client, self.outcome.seed)
        sampler = threading.Thread(target=self._sample_for_ever, name="sampler", daemon=True)
        load.start()
        sampler.start()
        try:
            for self._number in range(1, actions + 1):
                self._do(self._number, actions)
            self._take_stock()
            self.outcome.accepted = load.stop()
            self._settle_accounts(client, load)
        finally:
            load.stop()
            self._over.set()
            sampler.join()
            self._end()
        return self.outcome

    def _do(self, number: int, actions: int) -> None:
        # In the second half one master lives through it all, so that leaks show.
        action = draw(self.outcome.seed, number, keep_master=number > actions // 2)
        self._tell(str(action))
        self.outcome.actions[action.kind] = self.outcome.actions.get(action.kind, 0) + 1
        began = time.monotonic()
        try:
            self.operator.act(action)
        except MasterUnreachable as fault:
            # One that has just been started may not answer yet; whether it ever does is waited for below.
            if self._promise.pid == self.daemon.pid:
                self._blame(f"{action}: {fault}")
        except RqsupError as fault:
            self._blame(f"{action}: {type(fault).__name__}: {fault}")
        if not action.hasty:
            acted = time.monotonic()
            self._await_whole(str(action))
            self.outcome.heal_s.append(time.monotonic() - acted)
        if number % LOOK_EVERY == 0:
            self._take_stock()
        self._tell(f"    {time.monotonic() - began:.2f} s")

    def _await_whole(self, what: str) -> None:
        self.operator.finish()
        since, deadline = self.outcome.samples, time.monotonic() + HEAL_S
        while self.outcome.samples == since or not self._latest.whole:
            if time.monotonic() > deadline:
                self._blame(f"{what}: not whole again after {HEAL_S:g} s: {self._latest}")
                return
            time.sleep(SAMPLE_S / 2)

    def _take_stock(self) -> None:
        """Bring the pool to its configured size, and look at what its master holds."""
        self._await_whole("before taking stock")
        self.operator.reset()
        self._await_whole("taking stock")
        deadline = time.monotonic() + LIMIT_S
        # Those that leave finish their jobs first.
        while len(self.daemon.workers()) != WORKERS and time.monotonic() < deadline:
            time.sleep(SAMPLE_S)
        held = read_holdings(self.daemon.pid)
        if self._stocked != self.daemon.pid:
            self.outcome.holdings.clear()
        self._stocked = self.daemon.pid
        self.outcome.holdings.append(held)
        self._tell(f"    holds {held}")

    def _note_kill(self, pid: int) -> None:
        with self._lock:
            self._notes += 1
            self._promise.kill(pid)

    def _note_scale(self, target: int) -> None:
        with self._lock:
            self._notes += 1
            self._promise.scale(target)

    def _sample_for_ever(self) -> None:
        while not self._over.wait(SAMPLE_S):
            notes = self._notes
            try:
                seen = self.daemon.status()
            except (RqsupError, OSError):
                continue  # killed, stopped or starting: nobody answers, nothing is promised
            sample = Sample(
                pid=seen["pid"], target=seen["target"], ready=seen["ready"], state=seen["state"],
                workers={worker["pid"] for worker in seen["workers"]},
            )  # fmt: skip
            self.outcome.longest_turn_s = max(self.outcome.longest_turn_s, seen["longest_turn_s"])
            with self._lock:
                if self._notes != notes:
                    continue  # taken before an order and looked at after it, it would tell of neither
                breach = self._promise.observe(sample)
            self._latest = sample
            self.outcome.samples += 1
            if breach:
                self._blame(breach)

    def _blame(self, what: str) -> None:
        self._tell(f"    WRONG {what}")
        self.outcome.wrong.append(f"{self._number}: {what}")

    def _settle_accounts(self, client: Client, load: Load) -> None:
        deadline = time.monotonic() + LIMIT_S
        while load.ended() < self.outcome.accepted and time.monotonic() < deadline:
            time.sleep(SAMPLE_S)
        self.outcome.ended, self.outcome.dead = load.ended(), stats(client).get("dead", 0)
        if self.outcome.ended != self.outcome.accepted:
            self._blame(f"{self.outcome.accepted} jobs were accepted, {self.outcome.ended} ended")
        for fault in check(client.store, client.keys).faults:
            self._blame(f"job {fault.id} {fault.message}")

    def _end(self) -> None:
        status = self.daemon.stop()
        if status != 0:
            self._blame(f"the last master ended with status {status}")
        self.outcome.wrong += self.operator.complaints
        self.outcome.slow_turns = slow_turns(self.daemon.log_text(), self.operator.pauses)
        folder = self.operator.module.parent
        deadline = time.monotonic() + LIMIT_S
        while (orphans := living_in(folder)) and time.monotonic() < deadline:
            time.sleep(SAMPLE_S)
        if orphans:
            self._blame(f"processes outlived their masters: {orphans}")


def slow_turns(log: str, pauses: list[Pause]) -> list[tuple[float, float]]:
    """Turns that took long while nobody had stopped the master: seconds, and seconds on the CPU."""
    found = []
    for line in log.splitlines():
        if SLOW_TURN not in line:
            continue
        told = json.loads(line)
        end = dt.datetime.fromisoformat(told["time"]).timestamp()
        begin = end - told["seconds"]
        if not any(pause.begin <= end and begin <= pause.end for pause in pauses):
            found.append((told["seconds"], told["cpu_s"]))
    return found
