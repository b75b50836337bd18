"""A share of the storm of operator actions; all of it: `python -m benchmarks.storm`."""

from __future__ import annotations

import shutil

import pytest

from rqsup import Client
from rqsup.store.server import LocalServer
from tests.system.storm.storm import Storm

ACTIONS, SEED = 30, 20


@pytest.mark.slow
def test_thirty_actions_of_an_operator_break_no_promise(
    redis_server: LocalServer, client: Client, namespace: str
) -> None:
    lines: list[str] = []
    storm = Storm(redis_server.url, namespace, seed=SEED, tell=lines.append)

    outcome = storm.run(client, ACTIONS)

    log = storm.daemon.log_text()
    shutil.rmtree(storm.daemon.folder, ignore_errors=True)
    assert not outcome.wrong, "\n".join([*outcome.wrong, *lines, log[-6000:]])
    assert outcome.ended == outcome.accepted > 0
    assert outcome.samples > ACTIONS
