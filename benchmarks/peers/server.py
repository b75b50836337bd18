"""A Redis server for peers: on a TCP port of this machine, because not each of them knows Unix sockets."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks.stage import wait_for
from rqsup.store.server import find_binary


class Server:
    """Private, without files; the same for every peer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        command = [find_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        self.client: Any = redis.Redis(port=self.port)
        wait_for(self._answers, 30, "Redis")

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> psutil.Process:
        """The server's process."""
        return psutil.Process(self._process.pid)

    def clear(self) -> None:
        """Forget all data and all scripts."""
        self.client.flushall()
        self.client.script_flush()

    def reads(self) -> int:
        """Messages read from clients so far: round trips, as the server sees them."""
        stats: Mapping[str, Any] = self.client.info("stats")
        return int(stats.get("total_reads_processed", 0))

    def close(self) -> None:
        """End it."""
        self.client.close()
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
