"""The master stays small: what it does not need, it does not load."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rqsup.store.server import LocalServer
from tests.system.daemon import Daemon
from tests.waiting import wait_until

#: The terminal library, the clients' way to Redis, the code of workers, and the application: all of it for other processes.
NOT_LOADED = {
    "rich.console",
    "redis",
    "rqsup.workers.run",
    "rqsup.workers.loop",
    "rqsup.workers.boot",
    "rqsup.workers.isolation.fork",
    "rqsup.workers.isolation.sandbox",
    "probe",
}


@pytest.fixture
def daemon(redis_server: LocalServer, namespace: str) -> Iterator[Daemon]:
    daemon = Daemon(redis_server.url, namespace, workers={"count": 1})
    yield daemon
    daemon.stop()


def test_a_running_master_has_loaded_neither_the_application_nor_what_others_need(daemon: Daemon) -> None:
    # The interpreter tells of each import; its option is not handed on to the zygote.
    daemon.launch(python=("-X", "importtime"))
    wait_until(lambda: daemon.is_ready(1), what="a worker")
    told = [line for line in daemon.log_text().splitlines() if line.startswith("import time:")]

    loaded = {line.rpartition("|")[2].strip() for line in told}

    assert {"asyncio", "hiredis", "rqsup.supervisor.master"} <= loaded, "it tells"
    assert not loaded & NOT_LOADED
