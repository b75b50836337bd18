"""The scheduler: due jobs start at their time, without polling."""

from __future__ import annotations

import time

import pytest

from rqsup.request import Request
from rqsup.settings import RedisSettings
from rqsup.store.server import LocalServer
from rqsup.supervisor.upkeep.scheduler import DEAF_S, LONGEST_S
from tests.supervisor.upkeep.conftest import Bench, Upkeep
from tests.supervisor.upkeep.test_registry import beside


def test_a_due_job_is_moved_at_its_time(bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.scheduler.run(), upkeep.scheduler.listen()):
            await upkeep.until(lambda: upkeep.scheduler._listening)
            sent = time.monotonic()
            bench.client.enqueue_in(0.3, "t")
            await upkeep.until(lambda: upkeep.counters["promoted"] == 1)
            # Not before; how soon after is what benchmarks/punctuality.py measures.
            assert time.monotonic() - sent >= 0.29
            assert len(bench.ready()) == 1

    bench.run(scene)


def test_a_job_of_the_future_is_left_and_the_wait_is_known(bench: Bench) -> None:
    bench.client.enqueue_in(20, "t")

    async def scene(upkeep: Upkeep) -> None:
        assert await upkeep.scheduler.run_once() == DEAF_S
        upkeep.scheduler._listening = True
        assert await upkeep.scheduler.run_once() == pytest.approx(20, abs=1)

    assert bench.run(scene).counters["promoted"] == 0
    assert bench.ready() == []


def test_with_nothing_scheduled_it_sleeps_long(bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        upkeep.scheduler._listening = True
        assert await upkeep.scheduler.run_once() == LONGEST_S

    bench.run(scene)


def test_many_due_jobs_are_moved_in_batches_without_a_pause(bench: Bench) -> None:
    bench.client.enqueue_many(Request("t", delay_s=0.001) for _ in range(1200))

    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.scheduler.run()):
            await upkeep.until(lambda: upkeep.counters["promoted"] == 1200, DEAF_S * 5)

    bench.run(scene)

    assert len(bench.ready()) == 1200


def test_a_promoted_job_keeps_its_priority(bench: Bench) -> None:
    bench.client.send(Request("t", delay_s=0.001, priority="high"))

    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.scheduler.run()):
            await upkeep.until(lambda: bench.client.store.client.llen(bench.client.keys.ready("default:high")))

    bench.run(scene)


def test_a_sender_wakes_it_for_an_earlier_job(bench: Bench) -> None:
    bench.client.enqueue_in(60, "t")

    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.scheduler.run(), upkeep.scheduler.listen()):
            await upkeep.until(lambda: upkeep.scheduler._listening)
            bench.client.enqueue_in(0.05, "t")
            await upkeep.until(bench.ready, DEAF_S * 0.9)

    bench.run(scene)


def test_it_goes_on_when_redis_is_back(private_bench: Bench, private_redis: LocalServer) -> None:
    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.scheduler.run(), upkeep.scheduler.listen()):
            await upkeep.until(lambda: upkeep.scheduler._listening)
            private_redis.kill()
            await upkeep.until(lambda: not upkeep.scheduler._listening)
            private_redis.start()
            await upkeep.until(lambda: upkeep.scheduler._listening)
            private_bench.client.enqueue_in(0.05, "t")
            await upkeep.until(private_bench.ready, 5)

    private_bench.run(scene)


def test_a_user_who_may_not_listen_still_has_due_jobs_moved(
    private_bench: Bench, private_redis: LocalServer, capfd: pytest.CaptureFixture[str]
) -> None:
    private_bench.client.store.client.execute_command(
        "ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "resetchannels"
    )

    async def scene(_: Upkeep) -> None:
        upkeep = private_bench.upkeep()
        url = private_redis.url.replace("unix://", "unix://deaf:secret@")
        upkeep = Upkeep(upkeep.settings.__class__(namespace=upkeep.settings.namespace, redis=RedisSettings(url=url)))
        async with beside(upkeep.scheduler.run(), upkeep.scheduler.listen()):
            await upkeep.until(lambda: upkeep.scheduler._refusal)
            private_bench.client.enqueue_in(0.05, "t")
            await upkeep.until(private_bench.ready, DEAF_S * 4)
        await upkeep.store.close()

    private_bench.run(scene)

    told = capfd.readouterr()
    assert (told.out + told.err).count("Redis refuses the channel") == 1
