"""The reaper: finds workers whose master is gone, and nobody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqsup.store.server import LocalServer
from rqsup.supervisor.pool import process_start
from rqsup.supervisor.upkeep.reaper import Sightings
from rqsup.supervisor.upkeep.registry import Details, find_home
from tests.supervisor.upkeep.conftest import Bench, Upkeep
from tests.supervisor.upkeep.test_registry import beside


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["beat", "leave", "look"]), st.floats(0.1, 9)), max_size=60
    )
)
def test_only_a_worker_that_stood_still_for_the_whole_ttl_is_dead(steps: list[tuple[str, str, float]]) -> None:
    sightings, now, ttl_s = Sightings(), 0.0, 15.0
    beats: dict[str, int] = {}
    changed: dict[str, float] = {}
    for worker, what, seconds in steps:
        now += seconds
        if what == "beat":
            beats[worker] = beats.get(worker, 0) + 1
        elif what == "leave":
            beats.pop(worker, None)
        for name, beat in beats.items():
            if sightings.seen.get(name, ("", 0.0))[0] != str(beat):
                changed[name] = now

        dead = sightings.judge({name: str(beat) for name, beat in beats.items()}, now=now, ttl_s=ttl_s)

        assert set(dead) == {name for name in beats if now - changed[name] >= ttl_s}
        assert set(sightings.seen) == set(beats)


def test_the_next_death_is_the_ttl_after_the_oldest_sighting() -> None:
    sightings = Sightings()
    assert sightings.next_death(15) is None
    sightings.judge({"a": "1"}, now=1, ttl_s=15)
    sightings.judge({"a": "1", "b": "1"}, now=3, ttl_s=15)

    assert sightings.next_death(15) == 16
    assert sightings.next_death(15, known=["a"]) == 18


def dead_process() -> tuple[int, int]:
    """Pid and start of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(process.pid)
    process.communicate()
    return process.pid, started


def describe(bench: Bench, worker: str, *, home: str, master: tuple[int, int], pid: tuple[int, int]) -> None:
    details = Details(
        host="h",
        home=home,
        pool="p",
        number=1,
        generation=1,
        pid=pid[0],
        started=pid[1],
        master=master[0],
        master_started=master[1],
    )
    bench.client.store.client.set(bench.client.keys.worker(worker), msgspec.json.encode(details))


def reap_once(bench: Bench, looks: int = 1, **settings: Any) -> Upkeep:
    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.registry.run_recoveries()):
            for _ in range(looks):
                await upkeep.reaper.run_once()
            await upkeep.until(lambda: not upkeep.registry.in_debt)

    return bench.run(scene, **settings)


def test_workers_of_a_dead_master_on_this_machine_are_found_at_once(bench: Bench) -> None:
    [job_id] = bench.enqueue()
    bench.claim("w")
    describe(bench, "w", home=find_home(), master=dead_process(), pid=dead_process())

    upkeep = reap_once(bench, looks=2)

    assert bench.ready() == [job_id]
    assert bench.registered() == {}
    assert (upkeep.counters["reaped"], upkeep.counters["recovered"]) == (1, 1)
    assert upkeep.registry.recoveries[0].cause == "its master on this machine died"
    assert bench.client.record(job_id).crashes == 0


@pytest.mark.parametrize("alive", ["master", "worker"])
def test_a_worker_is_left_alone_while_it_or_its_master_runs(bench: Bench, alive: str) -> None:
    bench.enqueue()
    bench.claim("w")
    another, gone = (os.getppid(), process_start(os.getppid())), dead_process()
    describe(
        bench,
        "w",
        home=find_home(),
        master=another if alive == "master" else gone,
        pid=another if alive == "worker" else gone,
    )

    reap_once(bench)

    assert bench.registered() == {"w": "1"}


def test_a_worker_of_this_very_master_that_is_not_its_child_was_left_by_a_failed_upgrade(bench: Bench) -> None:
    [job_id] = bench.enqueue()
    bench.claim("w")
    describe(bench, "w", home=find_home(), master=(os.getpid(), process_start(os.getpid())), pid=dead_process())

    reap_once(bench)

    assert bench.registered() == {}
    assert bench.ready() == [job_id]


def test_pids_of_another_machine_mean_nothing_so_the_lease_decides(bench: Bench) -> None:
    [job_id] = bench.enqueue()
    bench.claim("w")
    describe(bench, "w", home="another boot/1", master=dead_process(), pid=dead_process())
    started = time.monotonic()

    async def scene(upkeep: Upkeep) -> None:
        async with beside(upkeep.registry.run_recoveries(), upkeep.reaper.run()):
            await upkeep.until(bench.ready)

    bench.run(scene, lease_ttl=0.5)

    assert time.monotonic() - started >= 0.5
    assert bench.ready() == [job_id]


def test_details_of_another_machines_worker_are_read_until_known_and_then_no_more(private_bench: Bench) -> None:
    redis: Any = private_bench.client.store.client
    private_bench.claim("w")

    async def scene(upkeep: Upkeep) -> None:
        async def keys_read() -> int:
            before = redis.info("stats")
            await upkeep.reaper.run_once()
            after = redis.info("stats")
            return sum(int(after[name]) - int(before[name]) for name in ("keyspace_hits", "keyspace_misses"))

        redis.delete(private_bench.client.keys.worker("w"))
        # The registry itself is one of the keys.
        assert await keys_read() == await keys_read() == 2
        describe(private_bench, "w", home="another boot/1", master=dead_process(), pid=dead_process())
        assert [await keys_read() for _ in range(3)] == [2, 1, 1]
        private_bench.claim("new")
        describe(private_bench, "new", home=find_home(), master=dead_process(), pid=dead_process())
        assert await keys_read() == 2
        assert upkeep.registry.indebted == {"new"}

    private_bench.run(scene)


def test_own_workers_are_not_judged_by_the_reaper(bench: Bench) -> None:
    bench.claim("w")

    async def scene(upkeep: Upkeep) -> None:
        upkeep.add_child("w")
        await upkeep.reaper.run_once()
        assert upkeep.reaper._sightings.seen == {}

    bench.run(scene)


def test_two_reapers_at_once_return_each_job_once(bench: Bench) -> None:
    ids = bench.enqueue(20)
    for number in range(4):
        bench.claim(f"w{number}", 5)
        describe(bench, f"w{number}", home=find_home(), master=dead_process(), pid=(2**22 + 1, 1))

    async def scene(first: Upkeep) -> None:
        second = bench.upkeep()
        async with beside(first.registry.run_recoveries(), second.registry.run_recoveries()):
            await asyncio.gather(first.reaper.run_once(), second.reaper.run_once())
            await first.until(lambda: not first.registry.in_debt and not second.registry.in_debt)
        assert first.counters["recovered"] + second.counters["recovered"] == 20
        await second.store.close()

    bench.run(scene)

    assert sorted(bench.ready()) == sorted(ids)


def test_a_worker_that_beat_again_in_time_is_reaped_when_it_dies_later(bench: Bench) -> None:
    [job_id] = bench.enqueue()
    bench.claim("w")

    async def scene(upkeep: Upkeep) -> None:
        await upkeep.reaper.run_once()
        await asyncio.sleep(0.5)
        await upkeep.reaper.run_once()  # judged dead …
        bench.claim("w", 0)  # … but it beats before the debt is paid
        async with beside(upkeep.registry.run_recoveries(), upkeep.reaper.run()):
            await upkeep.until(bench.ready)

    bench.run(scene, lease_ttl=0.5)

    assert bench.ready() == [job_id]


def test_jobs_that_cannot_be_returned_do_not_make_the_reaper_spin(bench: Bench) -> None:
    bench.claim("w")
    bench.client.store.client.set(bench.client.keys.processing("w"), "not a list")

    async def scene(upkeep: Upkeep) -> None:
        await upkeep.reaper.run_once()
        await asyncio.sleep(0.5)
        await upkeep.reaper.run_once()
        assert upkeep.registry.in_debt
        assert upkeep.reaper._pause_s() == pytest.approx(0.5 / 3)

    bench.run(scene, lease_ttl=0.5)


def test_what_is_no_worker_is_told_once_and_left_alone(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    redis = bench.client.store.client
    redis.hset(bench.client.keys.workers, mapping={b"\xff": b"1", b"v": b"\xfe", b"w": b"1"})
    redis.set(bench.client.keys.worker("w"), b'{"host": "\xff"}')

    upkeep = reap_once(bench, looks=3)

    assert set(upkeep.reaper._sightings.seen) == {"w"}
    told = capfd.readouterr()
    assert (told.out + told.err).count("what is no worker") == 2


def test_while_redis_was_away_nobodys_silence_counts(private_bench: Bench, private_redis: LocalServer) -> None:
    async def scene(upkeep: Upkeep) -> None:
        private_bench.claim("w")
        async with beside(upkeep.reaper.run()):
            await upkeep.until(lambda: upkeep.reaper._sightings.seen)
            private_redis.kill()
            await upkeep.until(lambda: not upkeep.reaper._sightings.seen)
            private_redis.start()
            await upkeep.until(lambda: upkeep.reaper._sightings.seen)
        assert not upkeep.registry.in_debt

    private_bench.run(scene, lease_ttl=2.0)
