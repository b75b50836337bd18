"""The ring of events and its followers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from rqsup.supervisor.events import Events


class Listener:
    """Takes events while it has room."""

    def __init__(self, room: int = 10_000) -> None:
        self.room = room
        self.gone = False
        self.told: list[dict[str, Any]] = []

    def __call__(self, text: str, /) -> None:
        self.told.append(msgspec.json.decode(text))

    @property
    def has_room(self) -> bool:
        return len(self.told) < self.room and not self.gone

    def names(self) -> list[str | int]:
        return [told.get("event") or told["missed"] for told in self.told]


def note(events: Events, *names: str) -> None:
    for name in names:
        events.take({"event": name, "level": "info", "logger_name": "master"})


async def until(listener: Listener, count: int) -> None:
    async with asyncio.timeout(10):
        while len(listener.told) < count:  # noqa: ASYNC110 - what is waited for is told by nobody
            await asyncio.sleep(0.005)


def test_the_last_events_are_told_in_order() -> None:
    async def live() -> Listener:
        events, listener = Events(), Listener()
        note(events, "a", "b", "c")
        await events.tell(listener, last=2, follow=False)
        return listener

    listener = asyncio.run(live())
    assert listener.names() == ["b", "c"]
    assert [told["number"] for told in listener.told] == [2, 3]


def test_what_jobs_print_is_no_event_and_values_become_plain() -> None:
    async def live() -> Listener:
        events, listener = Events(), Listener()
        events.take({"event": "output", "logger_name": "job", "text": "x"})
        events.take(
            {"event": "e", "level": "error", "exc_info": ValueError(), "pid": 7, "long": "y" * 9999, "none": None}
        )
        await events.tell(listener, last=10, follow=False)
        return listener

    [told] = asyncio.run(live()).told
    assert (told["event"], told["level"], told["fields"]["pid"]) == ("e", "error", 7)
    assert len(told["fields"]["long"]) == 500
    assert set(told["fields"]) == {"pid", "long"}


def test_a_follower_gets_what_comes_until_it_goes() -> None:
    async def live() -> Listener:
        events, listener = Events(), Listener()
        note(events, "before")
        task = asyncio.create_task(events.tell(listener, last=0, follow=True))
        await asyncio.sleep(0)
        assert events.followers == 1
        for number in range(3):
            note(events, f"n{number}")
            await until(listener, number + 1)
        listener.gone = True
        note(events, "after")
        await asyncio.wait_for(task, 10)
        assert events.followers == 0
        return listener

    assert asyncio.run(live()).names() == ["n0", "n1", "n2"]


def test_a_slow_follower_misses_events_and_is_told_how_many() -> None:
    async def live() -> Listener:
        events, listener = Events(kept=5), Listener(room=2)
        task = asyncio.create_task(events.tell(listener, last=0, follow=True))
        await asyncio.sleep(0)
        note(events, *(f"n{number}" for number in range(20)))
        await until(listener, 2)
        note(events, *(f"m{number}" for number in range(10)))
        listener.room = 100
        await until(listener, 8)
        events.close()
        await asyncio.wait_for(task, 10)
        return listener

    # The ring holds 5: of the first 20 events it missed 15 at once, then all but the last 5 of the rest.
    assert asyncio.run(live()).names() == [15, "n15", 9, "m5", "m6", "m7", "m8", "m9"]


def test_followers_leave_when_the_master_ends() -> None:
    async def live() -> None:
        events, listener = Events(), Listener()
        task = asyncio.create_task(events.tell(listener, last=0, follow=True))
        await asyncio.sleep(0)
        events.close()
        await asyncio.wait_for(task, 0.4)

    asyncio.run(live())
