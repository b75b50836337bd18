"""What a whole master tells systemd, heard where systemd would listen."""

from __future__ import annotations

import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqsup.errors import MasterRefused
from rqsup.store.server import LocalServer
from tests.system.daemon import Daemon
from tests.waiting import wait_until


class Listener:
    """The socket of a service manager; notes who sent what."""

    def __init__(self, path: str) -> None:
        self.messages: list[list[str]] = []
        self.senders: set[int] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(path)

    def heard(self) -> list[list[str]]:
        """All messages so far."""
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(12))
            except BlockingIOError:
                return self.messages
            self.messages.append(data.decode().splitlines())
            self.senders.add(struct.unpack("3i", ancillary[0][2])[0])

    def index(self, field: str, start: int = 0) -> int:
        """Place of the first message from `start` on that has this field; -1 = none yet."""
        return next((n for n, message in enumerate(self.heard()) if n >= start and field in message), -1)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with tempfile.TemporaryDirectory(prefix="rqsup-notify-") as folder:
        listener = Listener(f"{folder}/notify")
        yield listener
        listener.close()


def test_02_a_reload_says_when_it_began_and_always_that_it_is_over(
    redis_server: LocalServer, namespace: str, listener: Listener, tmp_path: Path
) -> None:
    daemon = Daemon(redis_server.url, namespace, app=["reloaded"], workers={"count": 1})
    daemon.environ = {"NOTIFY_SOCKET": str(listener._socket.getsockname()), "PYTHONDONTWRITEBYTECODE": "1"}
    app = tmp_path / "reloaded.py"
    app.write_text("")
    try:
        daemon.launch(path=tmp_path)
        wait_until(lambda: listener.index("READY=1") >= 0, what="the first READY=1")
        for broken in (False, True):
            app.write_text("import no_such_module" if broken else "")
            start = len(listener.heard())
            if broken:
                with pytest.raises(MasterRefused, match="no_such_module"):
                    daemon.ask("reload")
            else:
                daemon.ask("reload")
            begun = listener.index("RELOADING=1", start)
            over = wait_until(lambda begun=begun: listener.index("READY=1", begun) + 1, what="READY=1") - 1  # type: ignore[misc]
            assert start <= begun < over
            assert any(field.startswith("MONOTONIC_USEC=") for field in listener.messages[begun])
        assert any("last reload failed" in field for message in listener.messages for field in message)
    finally:
        daemon.stop()
    assert listener.index("STOPPING=1") >= 0
    assert listener.senders == {daemon.pid}
