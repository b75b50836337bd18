"""A process that answers on a control socket as a master would, by `PATH MANNER`.

Manners: drained, late, refusing, silent, stubborn. It prints `ready` when it listens, then a line for each command and signal that it gets, and ends on `stop` or TERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import setproctitle

from rqsup.errors import ConfigError, MasterRefused, UpgradeFailed
from rqsup.supervisor.ports.control import ControlPort
from tests.supervisor.ports.pictures import snapshot


class ScriptedMaster:
    """Answers each command at once; `manner` says how it stops."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.ended = asyncio.Event()
        self.facts: dict[str, Any] = msgspec.to_builtins(snapshot())

    async def handle(self, command: str, arguments: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
        say(f"{command} {arguments}")
        match command:
            case "status":
                return self.facts
            case "scale" if arguments.get("reset"):
                return {"target": 4}
            case "scale":
                self.facts["target"] = arguments["workers"]
            case "reload" if arguments.get("wait") == "ready":
                progress("new code is imported")
                return {"generation": 4}
            case "reload" if arguments.get("wait") == "drained":
                progress("new code is imported")
                raise ConfigError(["app: shop.tasks: SyntaxError"])
            case "upgrade":
                return upgrade(arguments.get("wait"), progress)
            case "quiet":
                self.facts |= {"state": "degraded", "degraded": "workers die before they are ready"}
            case "resume":
                self.facts |= {"redis_ok": False, "redis_fault": "connection refused"}
            case "stop":
                return await self.stop(progress)
        return {}

    async def stop(self, progress: Callable[[str], None]) -> dict[str, Any]:
        progress("draining 2 jobs")
        if self.manner == "stubborn":
            return {"drained": True}
        self.ended.set()
        if self.manner == "silent":
            await asyncio.sleep(60)
        if self.manner == "late":
            return {"drained": False}
        if self.manner == "refusing":
            raise MasterRefused("the drain deadline passed", 75)
        return {"drained": True}

    def end(self, signal_name: str) -> None:
        """What TERM and INT do."""
        say(signal_name)
        self.ended.set()


def upgrade(wait: str | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """One that fails, or one that goes well."""
    if wait == "drained":
        raise UpgradeFailed("the new program cannot take over, nothing changed: SyntaxError")
    progress("rqsup 0.2.0 has checked itself")
    return {"rqsup": "0.2.0", "from": "0.1.0", "generation": 4}


def say(text: str) -> None:
    """One line for the test that watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(path: str, manner: str) -> None:
    """Serve until told to stop."""
    setproctitle.setproctitle("rqsup: master [mail] 4/4 ready, 2 busy")
    master = ScriptedMaster(manner)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT):
        loop.add_signal_handler(number, say, number.name)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, master.end, number.name)
    port = ControlPort(path, master.handle, pool="mail")
    await port.start()
    say("ready")
    await master.ended.wait()
    await port.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
