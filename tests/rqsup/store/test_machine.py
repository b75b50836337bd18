"""Any order of steps keeps every accepted job in exactly one place; and a broken script is found out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis.stateful import run_state_machine_as_test

from rqsup.store import scripts
from rqsup.store.scripts import Script
from rqsup.store.server import LocalServer
from tests.rqsup.store.machine import machine

QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)


def test_no_order_of_steps_loses_or_doubles_a_job(redis_server: LocalServer) -> None:
    settings = hypothesis.settings(max_examples=25, stateful_step_count=60, deadline=None, suppress_health_check=QUIET)

    run_state_machine_as_test(machine(redis_server.url), settings=settings)


#: Script, what is taken out of it, and what is put in its place.
BROKEN = {
    "settle without the token": ("settle", "job[3] ~= token or job[2] ~= worker", "false"),
    "settle that keeps the entry": ("settle", "redis.pcall('LREM', processing, -1, id)", ""),
    "release that keeps the state": ("settle", "redis.call('HSET', key, 'state', 'ready')", ""),
    "claim that leaves the ids": ("claim", "redis.call('LTRIM', ready, '0', as_text(-#ids - 1))", "count = 0"),
    "recover that keeps the entry": ("recover", "redis.call('LREM', list, 1, id)", "redis.call('LMOVE', list, list, 'LEFT', 'RIGHT')"),
    "claim without a new token": ("claim", "(tonumber(job[3]) or 0) + 1", "1"),
    "promote that forgets the lane": ("promote", "deliver(id, job[2], job[3], false)", "false"),
    "claim that drops what it resumes": ("claim", "for i = #own, 1, -1 do", "redis.call('DEL', processing) for i = #own, 1, -1 do"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_script_is_found_out(redis_server: LocalServer, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(scripts, "script", broken(*BROKEN[fault]))
    settings = hypothesis.settings(
        max_examples=300, stateful_step_count=60, deadline=None, derandomize=True, database=None,
        phases=[hypothesis.Phase.generate], suppress_health_check=QUIET, report_multiple_bugs=False,
    )  # fmt: skip

    with pytest.raises((AssertionError, RuntimeError)):
        run_state_machine_as_test(machine(redis_server.url), settings=settings)


def broken(name: str, old: str, new: str) -> Callable[[str], Script]:
    """`scripts.script` with one seeded bug."""
    whole = scripts.script

    def load(wanted: str) -> Script:
        good = whole(wanted)
        if wanted != name:
            return good
        assert old in good.plain_source
        source, plain = good.source.replace(old, new), good.plain_source.replace(old, new)
        return replace(good, source=source, plain_source=plain, sha=sha(source), plain_sha=sha(plain))

    return load


def sha(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
