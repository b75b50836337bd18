"""What costs are measured against: more queues, levels, tenants, hosts. What they come to is not judged here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import growth, hosts
from benchmarks.bench import BATCH, Bench
from benchmarks.hosts import Spent
from rqsup import Client
from rqsup.job import LEVEL_LABELS
from rqsup.store.server import LocalServer


@pytest.fixture
def bench(private_redis: LocalServer) -> Iterator[Bench]:
    """On a server that may be emptied."""
    with Client(private_redis.url, namespace="bench") as client:
        yield Bench(client, private_redis.pid)


def test_each_level_of_a_queue_is_measured(bench: Bench) -> None:
    growth.of_levels(bench)

    assert len(bench.us) == 2 * len(LEVEL_LABELS)
    assert all(us > 0 for measured in bench.us.values() for us in measured)


def test_the_claimed_jobs_are_those_of_the_level(bench: Bench) -> None:
    bench.empty()
    bench.fill(3, LEVEL_LABELS[-1])

    assert len(bench.run(bench.claim(BATCH)).jobs) == 3


def test_every_tenant_has_its_job_claimed(bench: Bench) -> None:
    growth.of_tenants(bench, 3)

    assert list(bench.us) == ["claim of one, 3 namespaces"]
    assert all(not bench.of(f"tenant-{number}").run(bench.of(f"tenant-{number}").claim(1)).jobs for number in range(3))


def test_hosts_beat_look_and_recover(bench: Bench) -> None:
    growth.of_hosts(bench, 2)

    assert {name.rsplit(",", 1)[0] for name in bench.us} == {
        "one host's beat", "one reaper's look", "a new reaper's first look at details", "recovery of a worker with 64 jobs, a job",
    }  # fmt: skip
    # The recovered jobs are ready again.
    bench.run(bench.beat([0]))
    assert len(bench.run(bench.claim(BATCH)).jobs) == growth.LEFT


def test_idle_is_told_by_the_second_and_busy_by_the_job() -> None:
    idle = Spent(100.0, 1_000, 100, 1.0), Spent(130.0, 1_060, 110, 1.06)
    busy = Spent(130.0, 1_060, 110, 1.06), Spent(134.0, 1_060 + 6 * hosts.JOBS, 110 + hosts.JOBS // 50, 2.0)

    found = hosts.figures(3, idle, busy)

    assert (found.idle_commands_per_s, found.idle_ms_per_s) == (2.0, 2.0)
    assert (found.busy_scripts_per_job, found.busy_commands_per_job) == (0.02, 6.0)
    assert found.busy_jobs_per_s == hosts.JOBS / 4
