"""Work that waits for an idle worker that does not move is noticed."""

from __future__ import annotations

import time

from rqsup.supervisor.child import Child
from rqsup.supervisor.patience import Patience
from rqsup.supervisor.upkeep.idle import IdleWatch
from tests.supervisor.upkeep.conftest import Bench, Upkeep

PATIENCE = Patience(longest_s=100, grace_s=5)


def watch(upkeep: Upkeep) -> IdleWatch:
    return IdleWatch(store=upkeep.store, pool=upkeep.pool, settings=lambda: upkeep.settings)


def still_child(upkeep: Upkeep, worker: str, *, since_s: float = 10.0) -> Child:
    child = upkeep.add_child(worker)
    child.patience = PATIENCE
    child.view()
    child.stillness.since = time.monotonic() - since_s
    return child


def test_only_the_still_worker_with_a_job_in_its_lists_has_work_waiting(bench: Bench) -> None:
    bench.enqueue(2)
    bench.claim("stopped")
    bench.claim("just-turned")

    async def scene(upkeep: Upkeep) -> None:
        stopped, without = still_child(upkeep, "stopped"), still_child(upkeep, "without")
        turned = still_child(upkeep, "just-turned", since_s=0)

        await watch(upkeep).run_once()

        assert stopped.stillness.work_since is not None
        assert without.stillness.work_since is turned.stillness.work_since is None
        deadline = stopped.view().idle_deadline
        assert deadline == stopped.stillness.work_since + PATIENCE.grace_s

    bench.run(scene)


def test_looking_at_an_idle_pool_is_one_command(private_bench: Bench) -> None:
    async def scene(upkeep: Upkeep) -> None:
        for number in range(8):
            still_child(upkeep, f"w{number}")
        await upkeep.store.command("PING")
        before = private_bench.commands()

        await watch(upkeep).run_once()

        assert private_bench.commands() - before == 1

    private_bench.run(scene)


def test_the_grace_counts_from_the_first_look_and_ends_with_a_turn(bench: Bench) -> None:
    bench.enqueue()
    bench.claim("w")

    async def scene(upkeep: Upkeep) -> None:
        child = still_child(upkeep, "w")
        await watch(upkeep).run_once()
        first = child.stillness.work_since
        await watch(upkeep).run_once()
        assert child.stillness.work_since == first

        child.slot.turned = time.monotonic()
        child.view()

        assert child.stillness.work_since is None

    bench.run(scene)
