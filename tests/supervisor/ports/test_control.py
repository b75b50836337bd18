from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from rqsup.errors import MasterRefused
from rqsup.supervisor.ports import control, protocol
from rqsup.supervisor.ports.dial import request
from tests.supervisor.ports.other_user import as_nobody, needs_root
from tests.supervisor.ports.served import Served, read_all
from tests.waiting import wait_until


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "DEADLINE_S", 0.3)


def test_a_command_is_answered_with_its_arguments(served: Served) -> None:
    answer = request(served.path, "status", {"wide": True})

    assert answer == {"state": "running", "arguments": {"wide": True}}


def test_progress_comes_before_an_error_with_its_exit_code(served: Served) -> None:
    seen: list[str] = []

    with pytest.raises(MasterRefused, match=r"workers\.count: must be positive") as refusal:
        request(served.path, "reload", on_progress=seen.append)

    assert seen == ["starting the new code", "1/4 replaced"]
    assert refusal.value.exit == 78


@pytest.mark.parametrize(("command", "code"), [("stop", 75), ("scale", 1), ("no-such", 1), ("bug", 1)])
def test_every_error_names_its_exit_code(served: Served, command: str, code: int) -> None:
    with pytest.raises(MasterRefused) as refusal:
        request(served.path, command)

    assert refusal.value.exit == code


def test_a_fault_inside_the_master_is_logged_with_its_stack(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MasterRefused, match="its log says where"):
        request(served.path, "bug")

    assert "KeyError: 'boom'" in caplog.text


def test_an_answer_of_megabytes_arrives_whole(served: Served) -> None:
    assert len(request(served.path, "big", {"bytes": 2_000_000})["text"]) == 2_000_000


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"junk\n", "no request"),
        (b"\x00\xff\xfe\x80\n", "no request"),
        (b"[1, 2]\n", "no request"),
        (b'{"v": 1}\n', "no request"),
        (b'{"v": 1, "command": "status", "arguments": []}\n', "no request"),
        (b"[" * 60_000 + b"\n", "no request"),
        (b'{"v": 2, "command": "status"}\n', "version 1 of the control protocol, the command 2"),
        (b'{"command": "status"}\n', "version 1"),
        (b'{"v": 1, "command": "self-destruct"}\n', "unknown command 'self-destruct'"),
        (b"x" * 70_000 + b"\n", "at most 65536 bytes"),
        (b"x" * 1_000_000, "at most 65536 bytes"),
    ],
)
def test_a_hostile_client_gets_one_error_line_and_the_port_lives_on(served: Served, sent: bytes, told: str) -> None:
    (answer,) = served.raw(sent)

    assert answer["ok"] is False
    assert told in answer["error"]
    assert answer["exit"] == 1
    assert request(served.path, "status")["state"] == "running"


def test_looking_whether_somebody_listens_costs_nothing(served: Served) -> None:
    assert served.raw(b"") == []


def test_a_client_that_sends_nothing_is_dropped(served: Served, short_deadline: None) -> None:
    with served.connect() as client:
        assert b"no complete request within" in read_all(client)


def test_the_17th_client_is_told_to_come_back(served: Served) -> None:
    clients = [served.connect() for _ in range(16)]
    wait_until(lambda: len(served.port._clients) == 16, what="16 clients")

    with pytest.raises(MasterRefused, match="16 commands are under way"):
        request(served.path, "status")

    for client in clients:
        client.close()
    wait_until(lambda: not served.port._clients, what="the clients to be gone")
    assert request(served.path, "status")["state"] == "running"


def test_a_slow_reader_neither_blocks_the_loop_nor_fills_memory(served: Served, short_deadline: None) -> None:
    with served.connect() as client:
        client.sendall(protocol.encode(protocol.Request(command="chatty", v=1)))
        wait_until(lambda: served.port._clients, what="the command to begin")

        # The best of many: a busy machine makes some late, a blocked loop all.
        assert min(served.loop.lag_s() for _ in range(20)) < 0.2
        wait_until(lambda: not served.port._clients, what="the slow reader to be dropped")


def test_a_reader_in_time_gets_the_answer_though_progress_was_dropped(served: Served) -> None:
    lines = served.raw(protocol.encode(protocol.Request(command="chatty", v=1)))

    assert lines[-1] == {"ok": True, "answer": {}}
    assert 10 < len(lines) < 5000


def test_closing_ends_a_command_that_hangs(served: Served) -> None:
    with served.connect() as client:
        client.sendall(protocol.encode(protocol.Request(command="hang", v=1)))
        wait_until(lambda: served.port._clients, what="the command to begin")

        served.loop.run(served.port.close())

        assert read_all(client) == b""


@needs_root
def test_another_user_is_refused_whatever_the_mode_of_the_socket(served: Served) -> None:
    for part in (served.path, *served.path.parents[:3]):
        part.chmod(0o777)

    with pytest.raises(
        MasterRefused, match="user 65534 may not command this master: run the command as user 0 or root"
    ):
        as_nobody(lambda: request(served.path, "status"))


def test_while_the_port_holds_clients_wait_and_none_is_refused(served: Served) -> None:
    early = served.connect()
    listener, lock = served.loop.run(_hold_while(served, early))
    late = served.connect()
    late.sendall(b'{"v": 1, "command": "status"}\n')
    late.settimeout(0.2)
    with pytest.raises(TimeoutError):
        late.recv(1)

    served.loop.run(served.port.go_on(listener, lock))

    late.settimeout(15)
    assert b'"ok":true' in late.recv(1000)
    assert b'"ok":true' in early.recv(1000)
    assert request(served.path, "status")["state"] == "running"
    early.close()
    late.close()


async def _hold_while(served: Served, client: socket.socket) -> tuple[int, int]:
    """Hold; a client that came before sends its request only then, and is answered all the same."""
    holding = asyncio.create_task(served.port.hold())
    await asyncio.sleep(0)
    client.sendall(b'{"v": 1, "command": "status"}\n')
    return await holding


def test_a_client_whose_command_is_an_upgrade_is_answered_by_the_next_program(served: Served, folder: Path) -> None:
    mine, its = socket.socketpair()
    mine.settimeout(15)

    async def work(tell: control.Teller) -> dict[str, Any]:
        tell("taken over")
        return {"rqsup": "0.2.0"}

    served.loop.run(served.port.answer(its.detach(), work))

    lines = [json.loads(line) for line in read_all(mine).splitlines()]
    mine.close()
    assert lines == [{"progress": "taken over"}, {"ok": True, "answer": {"rqsup": "0.2.0"}}]
