"""A server at its memory limit: it refuses new jobs loudly, and lets the old ones drain."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup import Client
from rqsup.store import scripts
from rqsup.store.reach import parse_version
from rqsup.store.scripts import FLAGS_SINCE
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw


@pytest.fixture
def full(private_redis: LocalServer) -> Raw:
    """A full server: worker `w` holds job `held`, `idle` waits, `a` is ready, `b` due, `dead` buried."""
    raw = Raw(Client(private_redis.url))
    if parse_version(raw.redis.info("server")["redis_version"]) < FLAGS_SINCE:
        pytest.skip("servers before 7.0 know no script flags: a full one does not drain")
    raw.register("w", "idle")
    raw.enqueue("held")
    raw.claim()
    raw.enqueue("dead")
    raw.settle(raw.claim().jobs[0], "bury", b"{}", 0)
    raw.claim("idle", queues=("p",), wait=True)
    raw.enqueue("a")
    raw.enqueue("b", delay_ms=60_000)
    raw.redis.zadd(raw.keys.scheduled, {"b": 1})
    raw.redis.config_set("maxmemory", 1)
    return raw


@pytest.mark.parametrize("queue", ["q", "p", "new"], ids=["lane", "waiting worker", "new queue"])
def test_an_enqueue_is_refused_and_stores_nothing(full: Raw, queue: str) -> None:
    before = full.picture(without=())

    with pytest.raises(ResponseError, match=r"OOM|maxmemory"):
        full.enqueue("c", queue=queue)
    with pytest.raises(ResponseError, match=r"OOM|maxmemory"):
        full.enqueue("c", queue=queue, delay_ms=1_000)

    assert full.picture(without=()) == before


@pytest.mark.parametrize("outcome", ["succeed", "retry", "bury"])
def test_jobs_are_claimed_and_settled(full: Raw, outcome: str) -> None:
    job = full.claim().jobs[0]

    assert full.settle(job, outcome, b"{}", 1_000) == "ok"
    assert full.processing() == ["held"]


def test_a_dead_workers_jobs_come_back(full: Raw) -> None:
    assert full.recover().returned == ["held"]
    assert full.ready() == ["held", "a"]


def test_due_jobs_are_promoted_beats_count_and_letters_are_replayed(full: Raw) -> None:
    assert full.run(scripts.promote(full.root)).moved == 1
    assert full.run(scripts.heartbeat(full.root, ttl_ms=1_000, details={"w": b"{}"})) == []
    assert full.run(scripts.replay(full.root, job_id="dead")) == "ready"
    assert full.ready() == ["a", "b", "dead"]


def test_space_can_be_made(full: Raw) -> None:
    assert full.run(scripts.cancel(full.root, job_id="a", ttl_ms=1)) == "cancelled"
    assert full.run(scripts.purge_dead(full.root)) == 1
