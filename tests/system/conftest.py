"""Fixtures for tests with whole masters."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rqsup import Client
from rqsup.check import check
from rqsup.store.server import LocalServer
from tests.system import sdbox
from tests.system.daemon import Daemon
from tests.system.sdbox import SystemdBox
from tests.system.service import Service, names, start_redis

Start = Callable[..., Daemon]


@pytest.fixture
def start(redis_server: LocalServer, namespace: str, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts masters on the shared server; they are stopped, and on failure their logs shown."""
    yield from _starter(redis_server.url, namespace, request)


@pytest.fixture
def start_private(private_redis: LocalServer, namespace: str, request: pytest.FixtureRequest) -> Iterator[Start]:
    """The same on a server that the test may kill."""
    yield from _starter(private_redis.url, namespace, request)


@pytest.fixture
def private_client(private_redis: LocalServer, namespace: str) -> Iterator[Client]:
    """A client on the server that the test may kill."""
    with Client(private_redis.url, namespace=namespace) as client:
        yield client


@pytest.fixture
def assert_clean(client: Client) -> Callable[[], None]:
    """Asserts that every job is in exactly one place that matches its state."""
    return lambda: assert_clean_state(client)


def assert_clean_state(client: Client) -> None:
    """The state checker finds nothing wrong."""
    report = check(client.store, client.keys)
    assert not report.faults, report.faults


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdBox]:
    reason = sdbox.why_not()
    if reason:
        pytest.skip(reason)
    with SystemdBox(tmp_path_factory.mktemp("systemd") / "box") as box:
        start_redis(box)
        yield box


@pytest.fixture
def service(box: SystemdBox, request: pytest.FixtureRequest) -> Iterator[Service]:
    """An instance of its own, not started yet; its journal is shown when a test fails."""
    service = Service(box, next(names))
    yield service
    if request.session.testsfailed:
        print(f"--- {service.unit} ---\n{service.systemctl('status', check=False).stdout}\n{service.journal()}")  # noqa: T201 - pytest shows it
    service.systemctl("kill", "-s", "KILL", check=False)
    service.systemctl("stop", check=False)


@pytest.fixture
def running(service: Service) -> Service:
    service.systemctl("start")
    return service


def _starter(url: str, namespace: str, request: pytest.FixtureRequest) -> Iterator[Start]:
    daemons: list[Daemon] = []

    def start(*arguments: str, launch_only: bool = False, **sections: Any) -> Daemon:
        daemon = Daemon(url, namespace, **sections)
        daemons.append(daemon)
        return daemon.launch(*arguments) if launch_only else daemon.start(*arguments)

    yield start
    for daemon in daemons:
        daemon.stop()
        if request.session.testsfailed:
            print(f"--- log of {daemon.folder} ---\n{daemon.log_text()[-6000:]}")  # noqa: T201 - pytest shows it with the failure
        shutil.rmtree(daemon.folder, ignore_errors=True)
