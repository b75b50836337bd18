"""A control port with a scripted master behind it, in a loop of its own."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rqsup.errors import ConfigError, MasterRefused, RqsupError
from rqsup.supervisor.ports.control import ControlPort
from tests.supervisor.ports.loop_thread import LoopThread


async def handle(command: str, arguments: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """A master's part: each command shows one way to answer."""
    match command:
        case "status":
            return {"state": "running", "arguments": arguments}
        case "reload":
            progress("starting the new code")
            progress("1/4 replaced")
            raise ConfigError(["workers.count: must be positive"])
        case "stop":
            raise MasterRefused("the drain deadline passed", 75)
        case "scale":
            raise RqsupError("scale takes 1 to 1000")
        case "big":
            return {"text": "x" * arguments["bytes"]}
        case "chatty":
            for number in range(5000):
                progress(f"{number} " + "x" * 1000)
            return {}
        case "hang":
            await asyncio.sleep(60)
        case "bug":
            raise KeyError("boom")
    raise RqsupError(f"unknown command {command!r}")


class Served:
    """A running port."""

    def __init__(self, loop: LoopThread, path: Path) -> None:
        self.loop = loop
        self.path = path
        self.port = ControlPort(path, handle, pool="mail")
        loop.run(self.port.start())

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(15)
        client.connect(str(self.path))
        return client

    def raw(self, sent: bytes) -> list[dict[str, Any]]:
        with self.connect() as client:
            try:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
            except BrokenPipeError:
                pass  # the port answered before it had read all
            return [json.loads(line) for line in read_all(client).splitlines()]


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
