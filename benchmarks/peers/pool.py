"""The worker processes of one peer, and its sender, in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks import marks as marks_module
from benchmarks.marks import Marks
from benchmarks.meters import await_quiet, tree
from benchmarks.peers import producer
from benchmarks.peers.environments import CACHE, folder_of
from benchmarks.peers.peer import Peer
from benchmarks.peers.server import Server

#: More than the longest queue that is tried.
SLOTS = 1_100_000
#: Jobs that warm a pool up, in the last slots.
WARM = 50
#: Seconds that a process has to end in order.
PATIENCE_S = 5.0


class PeerFailed(Exception):
    """A peer did not do what was asked; the message says what, and where its log is."""


class Pool:
    """One peer on one server."""

    def __init__(self, peer: Peer, server: Server, *, tuned: bool = True, patience_s: float = 0.0) -> None:
        self.peer, self.server, self._tuned, self._patience_s = peer, server, tuned, patience_s
        self.folder = CACHE / "run" / peer.name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / "peer_app.py").write_text(peer.application)
        for module in (producer, marks_module):
            shutil.copy(str(module.__file__), self.folder)
        memory = Path("/dev/shm")  # noqa: S108 - the name below is this server's own
        self._path = (memory if memory.is_dir() else self.folder) / f"rqsup-peers-{server.port}-{peer.name}"
        self.marks = Marks(self._path, SLOTS)
        self.log = self.folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []
        #: All that was ever seen of them: a child may outlive a parent that is killed.
        self._seen: set[psutil.Process] = set()
        self.has_batch = peer.pace.batch > 0

    def produce(self, *words: object, timeout_s: float = 600) -> dict[str, Any]:
        """Run the sender."""
        command = [str(folder_of(self.peer) / "bin/python"), "producer.py", *map(str, words)]
        with self.log.open("ab") as log:
            ended = subprocess.run(
                command,
                cwd=self.folder,
                env=self._environ(),
                stdout=subprocess.PIPE,
                stderr=log,
                timeout=timeout_s,
                check=False,
            )
        lines = ended.stdout.splitlines()
        # Some libraries crash at the end of their process: what they had told before still holds.
        if not lines:
            raise PeerFailed(f"{self.peer.name}: the sender ended with {ended.returncode}, see {self.log}")
        found: dict[str, Any] = json.loads(lines[-1])
        return found

    def fill(self, jobs: int, *, kind: str = "noop", size: int = 0) -> dict[str, Any]:
        """Send so many jobs in the fastest way that the peer has."""
        return self.produce("batch" if self.has_batch else "one", kind, jobs, size)

    def start(self, workers: int = 2) -> None:
        """Start the worker processes, and return at once."""
        self._processes = [self._spawn(command) for command in self.peer.workers(workers, self._tuned)]

    def ready(self, workers: int = 2) -> None:
        """Start them on an empty queue, let them run jobs, and rest a moment."""
        self.reset()
        self.start(workers)
        self.produce("warm", WARM)
        self.wait(lambda: self.marks.ran(WARM, SLOTS - WARM) == WARM, 60, "warm workers")
        time.sleep(2)

    def rest(self) -> None:
        """Wait a while for others to leave the machine alone: before each measurement."""
        await_quiet(self._patience_s)

    def reset(self) -> None:
        """Empty the server, and forget all marks."""
        self.server.clear()
        self.marks.clear()

    def wait(self, done: Callable[[], bool], limit_s: float, what: str) -> None:
        """Wait for a fact.

        Raises:
            PeerFailed: it did not come.
        """
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline:
                raise PeerFailed(f"{self.peer.name}: waited {limit_s:g} s in vain for {what}, see {self.log}")
            time.sleep(0.02)

    def tree(self) -> list[psutil.Process]:
        """The living processes of the pool."""
        living = tree(process.pid for process in self._processes)
        self._seen.update(living)
        return living

    def stop(self) -> None:
        """End all of them: in order if they can, by force if not."""
        self.tree()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
        self.tree()
        for one in self._seen:
            # Compared by start time, too: a number that was given again is not ours.
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        for process in self._processes:
            process.wait()
        self._processes, self._seen = [], set()

    def close(self) -> None:
        """End all of them, and remove the marks."""
        self.stop()
        self._path.unlink(missing_ok=True)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self._environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _environ(self) -> dict[str, str]:
        return {
            "PATH": f"{folder_of(self.peer) / 'bin'}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8",
            "PYTHONPATH": str(self.folder), "BENCH_URL": self.server.url, "BENCH_MARKS": str(self._path),
            "BENCH_FOLDER": str(self.folder), "BENCH_TUNED": "1" if self._tuned else "0",
            "BENCH_PLAIN": "" if "async def enqueue" in self.peer.application else "1",
            **(self.peer.variables if self._tuned or "BENCH_STREAM" in self.peer.variables else {}),
        }  # fmt: skip
