"""Workers stay small: what they need is loaded before they are forked, and what they do not need is not loaded."""

from __future__ import annotations

import pytest

from rqsup import Client
from rqsup.errors import JobFailed
from tests.system.conftest import Start

#: The command line, the terminal and web libraries, the clients' way to Redis, TLS and coroutines; for an application that asks for none.
NOT_LOADED = {
    "click", "rich", "pygments", "prometheus_client", "http.server", "redis", "yaml", "psutil", "asyncio", "ssl", "_hashlib", "tempfile",
    "rqsup.supervisor.cli", "rqsup.supervisor.master", "rqsup.workers.concurrent",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring coverage would load modules of its own in every process."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def run_all(client: Client, *names: str) -> dict[str, list[str]]:
    """Run jobs one after the other, then ask their worker what it has loaded."""
    client.enqueue("baggage.nothing", "text").result(30)
    with pytest.raises(JobFailed):
        client.enqueue("baggage.fail").result(30)
    for name in ("baggage.apart", *names):
        client.enqueue(name).result(30)
    told: dict[str, list[str]] = client.enqueue("baggage.told").result(30)
    return told


def test_a_worker_loads_nothing_after_its_fork_and_has_none_of_what_others_need(start: Start, client: Client) -> None:
    start(app=["baggage"], workers={"count": 1})

    told = run_all(client)

    assert told["late"] == []
    assert not NOT_LOADED & set(told["loaded"])


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_tasks_ask_for_is_loaded_before_the_fork(start: Start, client: Client, concurrency: int) -> None:
    start(app=["baggage", "baggage_async"], workers={"count": 1, "concurrency": concurrency})

    told = run_all(client, "baggage.wait", "baggage.boxed")

    assert "asyncio" in told["loaded"]
    assert told["late"] == []
