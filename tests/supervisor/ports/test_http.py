from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from rqsup.errors import RqsupError
from rqsup.supervisor.ports import http
from rqsup.supervisor.ports.http import HttpPort
from tests.supervisor.ports.loop_thread import LoopThread
from tests.waiting import wait_until


class Facts:
    """What the pages show."""

    ready = True
    body = b"rqsup_workers 4\n"


class Served:
    """A running port, and its facts to change."""

    def __init__(self, loop: LoopThread) -> None:
        self.loop = loop
        self.facts = Facts()
        self.port = HttpPort(metrics=self.metrics, healthy=lambda: (True, "ok"), ready=self.ready)
        self.address = loop.run(self.port.start("127.0.0.1", 0))

    def metrics(self) -> bytes:
        if not self.facts.body:
            raise ValueError("no figures")
        return self.facts.body

    def ready(self) -> tuple[bool, str]:
        return self.facts.ready, "4/4 ready" if self.facts.ready else "Redis is away"

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=15)

    def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310 - http only
                return answer.status, answer.read()
        except urllib.error.HTTPError as fault:
            return fault.code, fault.read()

    def raw(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            return read_all(client)


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def served() -> Iterator[Served]:
    with LoopThread() as loop:
        served = Served(loop)
        yield served
        loop.run(served.port.close())


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE_S", 0.3)


def test_metrics_are_served_as_prometheus_text(served: Served) -> None:
    answer = served.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert b"Content-Length: 16" in head
    assert b"Connection: close" in head
    assert body == served.facts.body


def test_health_and_readiness_say_why(served: Served) -> None:
    assert served.get("/healthz") == (200, b"ok\n")
    assert served.get("/readyz?verbose=1") == (200, b"4/4 ready\n")

    served.facts.ready = False

    assert served.get("/readyz") == (503, b"Redis is away\n")
    assert served.get("/healthz") == (200, b"ok\n")


def test_head_has_the_length_but_no_body(served: Served) -> None:
    answer = served.raw(b"HEAD /metrics HTTP/1.1\r\n\r\n")

    assert b"Content-Length: 16" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_unknown_paths_and_methods_are_refused(served: Served) -> None:
    assert served.get("/")[0] == 404
    assert served.get("/metrics", "DELETE")[0] == 405
    assert b"Allow: GET, HEAD" in served.raw(b"POST /healthz HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"junk\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"GET metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n: no name\r\n\r\n",
        bytes(range(256)) + b"\r\n\r\n",
    ],
)
def test_malformed_requests_are_400(served: Served, request_bytes: bytes) -> None:
    assert status_of(served.raw(request_bytes)) == 400
    assert served.get("/healthz")[0] == 200


def test_a_request_cut_short_is_400(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"GET /metrics HT")
        client.shutdown(socket.SHUT_WR)

        assert status_of(read_all(client)) == 400


@pytest.mark.parametrize("size", [8192, 20_000, 200_000])
def test_an_oversized_request_is_431(served: Served, size: int) -> None:
    request = b"GET /metrics HTTP/1.1\r\nX: " + b"a" * size + b"\r\n\r\n"

    assert status_of(served.raw(request)) == 431


def test_a_request_that_never_ends_is_408(served: Served, short_deadline: None) -> None:
    with served.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")

        assert status_of(read_all(client)) == 408


def test_a_fault_in_a_page_is_500_and_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.facts.body = b""

    assert served.get("/metrics")[0] == 500
    assert "ValueError: no figures" in caplog.text
    assert served.get("/healthz")[0] == 200


def test_the_65th_connection_is_told_503_at_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE_S", 3600)
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(served.connect())

        answer = read_all(stack.enter_context(served.connect()))

        assert status_of(answer) == 503
        # It did not wait for one of the others to leave.
        wait_until(lambda: len(served.port._clients) == 64, what="the others alone")


def test_200_slow_sockets_do_not_delay_the_loop(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            client = stack.enter_context(served.connect())
            with contextlib.suppress(OSError):  # those beyond the bound are reset
                client.sendall(b"GET /metr")

        # The best of many: a busy machine makes some late, a blocked loop all.
        assert min(served.loop.lag_s() for _ in range(20)) < 0.1

    wait_until(lambda: served.get("/healthz")[0] == 200, what="the port to recover")


def test_a_client_that_never_reads_is_dropped(served: Served, short_deadline: None) -> None:
    served.facts.body = b"x" * 20_000_000

    with served.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        wait_until(lambda: not served.port._clients, what="the slow reader to be dropped")

        assert served.get("/healthz")[0] == 200


def test_closing_does_not_wait_for_idle_clients(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE_S", 3600)
    with served.connect() as client:
        served.get("/healthz")

        served.loop.run(served.port.close())

        assert client.recv(1) == b""
    served.loop.run(served.port.close())


def test_a_taken_port_is_named_with_its_key(served: Served) -> None:
    port = int(served.address.rpartition(":")[2])
    second = HttpPort(metrics=served.metrics, healthy=served.ready, ready=served.ready)

    with pytest.raises(RqsupError, match=rf"port {port} on 127.0.0.1 is taken.*metrics\.port"):
        served.loop.run(second.start("127.0.0.1", port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_host_is_named_with_its_key(served: Served, host: str) -> None:
    with pytest.raises(RqsupError, match=r"metrics\.host"):
        served.loop.run(served.port.start(host, 0), timeout_s=60)


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    with LoopThread() as loop:
        port = HttpPort(metrics=lambda: b"", healthy=lambda: (True, ""), ready=lambda: (True, ""))

        try:
            assert loop.run(port.start("::1", 0)).startswith("[::1]:")
        except RqsupError:
            pytest.skip("this host has no IPv6")
        finally:
            loop.run(port.close())


def test_while_the_port_holds_clients_wait_and_none_is_refused(served: Served) -> None:
    listeners = served.loop.run(served.port.hold())
    host, _, port = served.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=15) as late:
        late.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.recv(1)

        served.loop.run(served.port.go_on(listeners))

        late.settimeout(15)
        assert late.recv(1000).startswith(b"HTTP/1.1 200")
