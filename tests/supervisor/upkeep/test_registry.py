"""Beats for living workers, and what is owed to the jobs of dead ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rqsup.errors import RedisUnavailable
from rqsup.store import scripts
from rqsup.store.server import LocalServer
from rqsup.supervisor.child import Child, Death, judge
from rqsup.supervisor.plan import Phase
from rqsup.supervisor.pool import process_start
from rqsup.supervisor.upkeep.debt import Debt
from rqsup.supervisor.upkeep.registry import DETAILS_TTLS, Details, find_home, is_running
from tests.supervisor.children import enter_job
from tests.supervisor.upkeep.conftest import Bench, Upkeep


def debt(worker: str, *, charged: str = "", beat: str = "") -> Debt:
    return Debt(worker, 1, 99, "killed", charged, time.monotonic(), beat=beat)


def death_of(child: Child) -> Death:
    return judge(child, os.waitid_result((1, 0, signal.SIGCHLD, signal.SIGKILL, os.CLD_KILLED)), time.monotonic())


@contextlib.asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines while a block runs."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        while not all(task.done() for task in tasks):
            # Again and again: asyncio.wait_for of Python 3.11, which redis-py uses, may swallow a cancellation.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.1)


def test_a_beat_registers_workers_and_renews_their_leases(bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        child = upkeep.add_child("w1")
        enter_job(child, started=time.monotonic())
        await upkeep.registry.beat()
        await upkeep.registry.beat()

        assert child.slot.lease_until == pytest.approx(time.monotonic() + 15, abs=1)

    bench.run(scene)

    assert bench.registered() == {"w1": "2"}
    row = bench.client.store.client.get(bench.client.keys.worker("w1"))
    details = msgspec.json.decode(row, type=Details)
    assert (details.home, details.pid, details.master) == (find_home(), os.getpid(), os.getpid())
    assert (details.state, details.task, details.job) == ("busy", "mail.send", "job-1")
    assert 0 < bench.client.store.client.pttl(bench.client.keys.worker("w1")) <= 300_000


def test_beats_with_nothing_to_tell_are_one_command_for_all_workers(private_bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        for number in range(8):
            upkeep.add_child(f"w{number}")
        for _ in range(2):
            await upkeep.registry.beat()
        before = private_bench.commands()

        for _ in range(3):
            await upkeep.registry.beat()

        assert private_bench.commands() - before == 3
        assert private_bench.registered() == {f"w{number}": "5" for number in range(8)}

    private_bench.run(scene)


def test_a_change_is_told_with_the_next_beat_and_told_again_before_it_expires(bench: Bench) -> None:
    redis, key = bench.client.store.client, bench.client.keys.worker("w")

    async def scene(upkeep: Upkeep) -> None:
        child = upkeep.add_child("w")
        await upkeep.registry.beat()
        enter_job(child, started=time.monotonic())
        await upkeep.registry.beat()
        assert msgspec.json.decode(redis.get(key), type=Details).state == "busy"
        redis.delete(key)
        await upkeep.registry.beat()
        assert not redis.exists(key), "nothing changed"

        worker, (sent, at) = next(iter(upkeep.registry._told.items()))
        upkeep.registry._told[worker] = (sent, at - 15 * DETAILS_TTLS / 2)
        await upkeep.registry.beat()

        assert redis.exists(key)

    bench.run(scene)


@pytest.mark.parametrize("stands", ["holds its job", "idle"])
def test_a_beat_with_nothing_to_tell_finds_whose_lease_was_lost(bench: Bench, stands: str) -> None:
    bench.enqueue(2)
    bench.claim("lost")
    if stands == "holds its job":
        bench.claim("kept")

    async def scene(upkeep: Upkeep) -> None:
        lost, kept = upkeep.add_child("lost"), upkeep.add_child("kept")
        enter_job(lost, started=time.monotonic())
        for _ in range(2):
            await upkeep.registry.beat()
        bench.client.store.run(scripts.recover(bench.client.keys.root, worker="lost", cause=b"{}"))

        await upkeep.registry.beat()

        assert lost.slot.lost_at
        assert not kept.slot.lost_at or stands == "idle", "who has no job in hand loses nothing by being told"
        assert set(bench.registered()) == {"lost", "kept"}
        await upkeep.registry.beat()
        assert bench.client.store.client.exists(bench.client.keys.worker("lost")), "its details were lost, too"

    bench.run(scene)


def test_a_lost_lease_is_found_although_redis_goes_away_before_it_tells_whose(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(upkeep: Upkeep) -> None:
        lost = upkeep.add_child("w")
        for _ in range(2):
            await upkeep.registry.beat()
        bench.client.store.run(scripts.recover(bench.client.keys.root, worker="w", cause=b"{}"))

        async def away(_call: object) -> None:
            raise RedisUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(upkeep.store, "run", away)
            with pytest.raises(RedisUnavailable):
                await upkeep.registry.beat()
        assert not lost.slot.lost_at

        await upkeep.registry.beat()

        assert lost.slot.lost_at

    bench.run(scene)


def test_a_full_server_does_not_look_like_dead_workers(private_bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        upkeep.add_child("w")
        await upkeep.registry.beat()
        beat = private_bench.registered()["w"]
        private_bench.client.store.client.config_set("maxmemory", 1)

        await upkeep.registry.beat()

        assert private_bench.registered()["w"] != beat

    private_bench.run(scene)


@pytest.mark.parametrize("wedged", ["job", "drain", "dying"])
def test_nobody_vouches_for_a_wedged_worker(bench: Bench, wedged: str) -> None:
    async def scene(upkeep: Upkeep) -> None:
        child = upkeep.add_child()
        if wedged == "job":
            enter_job(child, started=time.monotonic() - 100)
        elif wedged == "drain":
            child.phase, child.deadline = Phase.DRAINING, time.monotonic() - 1
        else:
            child.phase = Phase.DYING

        await upkeep.registry.beat()

        assert child.slot.lease_until == 0

    bench.run(scene)

    assert bench.registered() == {}


def test_a_new_worker_has_its_lease_before_it_can_have_a_job(bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        child = upkeep.add_child()
        upkeep.pool.children["w"] = child
        seen: list[float] = []
        run = upkeep.store.run

        async def spy(call: scripts.Call[list[str]]) -> list[str]:
            seen.append(child.slot.lease_until)
            return await run(call)

        upkeep.store.run = spy  # type: ignore[assignment, method-assign]
        await upkeep.registry.beat()

        assert seen[0] > time.monotonic() + 10

    bench.run(scene)


def test_a_lost_lease_is_told_and_stays_lost_for_the_job_in_hand(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scene(upkeep: Upkeep) -> None:
        child = upkeep.add_child()
        enter_job(child, started=time.monotonic())
        await upkeep.registry.beat()
        held = child.slot.lease_until
        bench.client.store.client.delete(bench.client.keys.workers)

        await upkeep.registry.beat()
        await upkeep.registry.beat()
        assert child.slot.lease_until == held
        enter_job(child, "job-2", started=time.monotonic())
        await upkeep.registry.beat()
        assert child.slot.lease_until > held

    bench.run(scene)

    told = capfd.readouterr()
    assert (told.out + told.err).count("lease was lost") == 1


def test_a_death_returns_the_workers_jobs_with_cause_and_charge(bench: Bench) -> None:
    ids = bench.enqueue(3)
    bench.claim("w", 3)

    async def scene(upkeep: Upkeep) -> None:
        child = upkeep.add_child()
        enter_job(child, ids[0])
        async with beside(upkeep.registry.run_recoveries()):
            upkeep.registry.owe(death_of(child))
            assert upkeep.registry.in_debt
            await upkeep.until(lambda: not upkeep.registry.in_debt)

    upkeep = bench.run(scene)

    assert bench.ready() == ids
    record = bench.client.record(ids[0])
    assert record.crashes == 1
    assert record.crash
    assert "SIGKILL" in record.crash["message"]
    assert bench.client.record(ids[1]).crashes == 0
    assert upkeep.counters == {"recovered": 3, "crashed": 1, "returned": 2, "reaped": 0}
    [recovery] = upkeep.registry.recoveries
    assert recovery.jobs == ids[::-1] or recovery.jobs == ids
    assert recovery.back_after_ms < 1000
    assert bench.registered() == {}


def test_the_job_that_reached_the_crash_limit_is_buried(bench: Bench) -> None:
    [job_id] = bench.enqueue()
    bench.claim("w")

    async def scene(upkeep: Upkeep) -> None:
        upkeep.registry.add(debt("w", charged=job_id))
        async with beside(upkeep.registry.run_recoveries()):
            await upkeep.until(lambda: not upkeep.registry.in_debt)

    upkeep = bench.run(scene, crash_limit=1)

    assert bench.client.record(job_id).state == "dead"
    assert upkeep.registry.recoveries[0].buried == [job_id]


def test_a_worker_with_many_jobs_is_emptied_in_several_steps(bench: Bench) -> None:
    ids = bench.enqueue(1100)
    bench.claim("w", 1100)

    async def scene(upkeep: Upkeep) -> None:
        upkeep.registry.add(debt("w"))
        async with beside(upkeep.registry.run_recoveries()):
            await upkeep.until(lambda: not upkeep.registry.in_debt)

    assert bench.run(scene).counters["recovered"] == 1100
    assert bench.ready() == ids


def test_debts_are_paid_in_order_when_redis_is_back(private_bench: Bench, private_redis: LocalServer) -> None:
    for worker in ("w1", "w2"):
        private_bench.enqueue()
        private_bench.claim(worker)

    async def scene(upkeep: Upkeep) -> None:
        private_redis.kill()
        async with beside(upkeep.registry.run_recoveries(), upkeep.registry.run_beats()):
            upkeep.registry.add(debt("w1"))
            upkeep.registry.add(debt("w2"))
            await upkeep.until(lambda: upkeep.counters["beats_failed"] >= 1)
            private_redis.start()
            await upkeep.until(lambda: not upkeep.registry.in_debt)
            await upkeep.until(lambda: upkeep.store.ok)

    upkeep = private_bench.run(scene)

    assert [recovery.worker for recovery in upkeep.registry.recoveries] == ["w1", "w2"]


def test_a_debt_that_redis_refuses_does_not_hold_up_the_others(bench: Bench) -> None:
    [job_id] = bench.enqueue()
    bench.claim("w2")
    bench.client.store.client.set(bench.client.keys.processing("w1"), "not a list")

    async def scene(upkeep: Upkeep) -> None:
        upkeep.registry.add(debt("w1"))
        upkeep.registry.add(debt("w2"))
        async with beside(upkeep.registry.run_recoveries()):
            await upkeep.until(bench.ready)
            assert upkeep.registry.in_debt
            bench.client.store.client.delete(bench.client.keys.processing("w1"))
            await upkeep.until(lambda: not upkeep.registry.in_debt)

    bench.run(scene)

    assert bench.ready() == [job_id]


def test_a_worker_that_beat_again_keeps_its_jobs(bench: Bench) -> None:
    bench.enqueue()
    bench.claim("w")

    async def scene(upkeep: Upkeep) -> None:
        upkeep.registry.add(replace(debt("w", beat="77"), reaped=True))
        async with beside(upkeep.registry.run_recoveries()):
            await upkeep.until(lambda: not upkeep.registry.in_debt)

    upkeep = bench.run(scene)

    assert bench.ready() == []
    assert bench.registered() == {"w": "1"}
    assert upkeep.counters["reaped"] == 0


def test_a_worker_that_dies_during_a_beat_does_not_stay_in_the_registry(bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        upkeep.add_child()
        async with beside(upkeep.registry.run_recoveries()):
            beat = asyncio.create_task(upkeep.registry.beat())
            await asyncio.sleep(0)  # the beat has chosen its workers
            del upkeep.pool.children["w"]
            await beat
            await upkeep.until(lambda: not upkeep.registry.in_debt)

    bench.run(scene)

    assert bench.registered() == {}


def test_beats_go_on_by_themselves_and_hasten_when_asked(bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.registry.run_beats()):
            await upkeep.until(lambda: upkeep.store.ok)
            upkeep.add_child()
            upkeep.registry.hasten()
            await upkeep.until(lambda: bench.registered().get("w"), 0.4 * upkeep.registry.interval_s)
            await upkeep.until(lambda: int(bench.registered()["w"]) >= 3)

    bench.run(scene, lease_ttl=1.5)


def test_without_redis_a_beat_fails_in_words(private_bench: Bench, private_redis: LocalServer) -> None:
    async def scene(upkeep: Upkeep) -> None:
        private_redis.kill()
        with pytest.raises(RedisUnavailable):
            await upkeep.registry.beat()
        assert not upkeep.store.ok

    private_bench.run(scene)


def test_a_process_is_told_from_another_with_its_pid() -> None:
    started = process_start(os.getpid())

    assert is_running(os.getpid(), started)
    assert not is_running(os.getpid(), started + 1)
    assert not is_running(2**22 + 1, started)


def test_a_zombie_does_not_run() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    started = process_start(pid)

    assert not is_running(pid, started)

    os.waitpid(pid, 0)


def test_a_home_is_this_boot_and_pid_namespace() -> None:
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() in find_home()
