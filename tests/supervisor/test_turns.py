from __future__ import annotations

import asyncio
import time

from rqsup.supervisor.turns import SLOW_S, TurnClock


def run_on(clock: TurnClock, block_s: float) -> None:
    async def work() -> None:
        await asyncio.sleep(0.001)
        time.sleep(block_s)  # noqa: ASYNC251 - a turn that holds the loop up is the point
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
        runner.run(work())


def test_the_longest_turn_is_measured_and_waiting_is_none() -> None:
    clock = TurnClock()

    run_on(clock, 2 * SLOW_S)

    assert clock.turns >= 3
    assert clock.slow >= 1
    assert clock.longest_s >= 2 * SLOW_S


def test_waiting_is_no_turn() -> None:
    clock = TurnClock()
    clock.select(0)

    clock.select(0.3)

    assert clock.longest_s < 0.3
    clock.close()
