"""The estate: one document, read by programs of other versions."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from rqsup.errors import EstateUnfit
from rqsup.settings import Settings
from rqsup.supervisor import estate
from rqsup.supervisor.bequest import bequeath
from rqsup.supervisor.estate import Estate, PortsEstate
from rqsup.supervisor.master import Master
from rqsup.supervisor.turns import TurnClock
from rqsup.supervisor.upkeep.debt import Debt
from rqsup.workers.protocol import protocol
from tests.supervisor.children import make_child

#: As the first version wrote it. A document like this one is read for as long as VERSION is 1.
FIRST: dict[str, Any] = {
    "version": 1, "rqsup": "0.1.0", "settings": {"pool": "mail"}, "at": 5.5, "wait": "drained",
    "master": {
        "started_at": 1.5, "quiet": True, "turns": 9, "told_ready": True, "pardon_until": 0.0, "counters": {"deaths": 2},
        "scaled_to": 3, "course": {"target": 2, "changed_at": 1.0, "calm_since": None}, "shedding": "",
    },
    "pool": {
        "scoreboard": 10, "folded": {"succeeded": 7}, "order": 1, "strangers": 4, "oom": {"/proc/vmstat": {"explained": 1, "at_tick": 1}},
        "children": [{
            "assignment": {"number": 1, "worker": "host.1.1", "slot": 0, "generation": 1, "master_pid": 77, "check": ""},
            "pid": 78, "channel": 11, "box": 12, "phase": "draining", "forked_at": 2.5, "deadline": 9.5, "started_ticks": 5,
            "verdict": {"reason": "hard timeout", "charge": True, "job": "j"}, "abandoned": "", "unfit": "", "was_ready": True,
            "luck": 0.5, "memory": 0, "worn": "", "stack": "",
        }],
    },
    "rollout": {
        "latest": 2, "zygote": {"number": 1, "pid": 79, "socket": 13, "tasks": ["mail.send"]}, "last_reload": "failed",
        "restart": {"pause_s": 0.5, "cap_s": 60.0, "failures": 1, "not_before": 3.0, "reason": "boom"},
    },
    "registry": {
        "debts": [{
            "worker": "host.1.0", "number": 2, "pid": 70, "cause": "killed", "charged_job": "j0", "seen_at": 4.5, "beat": "",
            "reaped": False, "stack": "", "tried": [],
        }],
        "registered": ["host.1.1"],
        "lost": {"host.1.1": {"id": "j", "task": "t", "started": 1.0, "soft_deadline": 2.0, "hard_deadline": 3.0}},
        "recoveries": [],
    },
    "ports": {"control": 14, "lock": 15, "http": [16, 17], "metrics_address": "127.0.0.1:9090", "requesters": [18]},
}  # fmt: skip


@pytest.fixture
def documents() -> Iterator[list[int]]:
    opened: list[int] = []
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def document(documents: list[int], data: bytes) -> int:
    descriptor = os.memfd_create("test")
    documents.append(descriptor)
    os.write(descriptor, data)
    return descriptor


def first(**changes: Any) -> bytes:
    return msgspec.json.encode(FIRST | {"protocol": protocol()} | changes)


def test_a_document_of_the_first_version_is_read(documents: list[int]) -> None:
    found = estate.read(document(documents, first()))

    assert found.pool.children[0].assignment.worker == "host.1.1"
    assert found.registry.debts[0].charged_job == "j0"
    assert sorted(found.descriptors()) == [10, 11, 12, 13, 14, 15, 16, 17, 18]
    settings = estate.settings_in(found)
    assert settings
    assert settings.pool == "mail"


def test_fields_of_a_later_version_are_passed_over(documents: list[int]) -> None:
    later = msgspec.json.decode(first())
    later["pool"]["children"][0]["colour"] = "red"

    assert estate.read(document(documents, msgspec.json.encode(later | {"more": 1}))).at == 5.5


def test_settings_that_this_program_does_not_know_are_no_fault(documents: list[int]) -> None:
    found = estate.read(document(documents, first(settings={"pool": "mail", "removed": True})))

    assert estate.settings_in(found) is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xff\x00", "cannot be read"),
        (b"[]", "cannot be read"),
        (first(version=2), "reads version 1: restart"),
        (first(protocol="0.0"), r"speak 0\.0 with their master"),
        (first(pool=None), "cannot be read"),
    ],
)
def test_what_is_no_fit_estate_is_refused_with_the_reason(documents: list[int], data: bytes, reason: str) -> None:
    with pytest.raises(EstateUnfit, match=reason):
        estate.read(document(documents, data))


def test_a_descriptor_that_is_not_open_is_refused() -> None:
    with pytest.raises(EstateUnfit, match="Bad file descriptor"):
        estate.read(9999)


def test_everything_that_a_master_leaves_is_read_again(documents: list[int]) -> None:
    child = make_child()
    child.worn, child.stack = "it ran 5 jobs", "Thread 0x1"
    debt = Debt("host.1.0", 2, 70, "killed", "", time.monotonic())

    async def leave() -> Estate:
        master = Master(Settings(), config=None, clock=TurnClock())
        master.pool.children[child.worker] = child
        master.registry.add(debt)
        master.counters["deaths"] = 3
        master.scale(7)
        return bequeath(master, PortsEstate(control=5, lock=6), "ready")

    left = asyncio.run(leave())
    documents.append(estate.write(left))

    found = estate.read(documents[-1])
    assert msgspec.structs.replace(found, settings=left.settings) == left
    assert (found.registry.debts, found.master.scaled_to, found.pool.children[0].stack) == ([debt], 7, "Thread 0x1")
    assert estate.settings_in(found) == Settings()
