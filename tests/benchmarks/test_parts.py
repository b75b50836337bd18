"""The parts of the benchmarks run, and prove that every job ran. What they measure is not judged here."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import psutil
import pytest

from benchmarks import drain, limit, million, mixed, pickup, steady
from benchmarks.marks import STRIDE, Marks
from benchmarks.meters import Watch, mapped_bytes, pss_mib
from benchmarks.million import Block, Memory
from benchmarks.parts import PARTS, Effort, in_rounds, ways_to_settle

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.stem not in {"__init__", "__main__"} and "app" not in path.parts
)
#: So few that a loaded machine takes a second.
JOBS = 300


@pytest.fixture(autouse=True)
def with_a_server(redis_binary: str) -> None:
    """Each starts its own server."""


@pytest.mark.parametrize("settle", ["each", "batch"])
def test_the_bare_loop_drains(settle: limit.SettleWay) -> None:
    assert limit.measure(JOBS, settle=settle).jobs_per_s > 0


@pytest.mark.parametrize("way", ways_to_settle().values(), ids=list(ways_to_settle()))
def test_rqsup_drains(way: dict[str, str]) -> None:
    found = drain.measure(JOBS, **drain.settings_of([f"{name}={value}" for name, value in way.items()]))

    assert found.jobs_per_s > 0
    assert found.redis_us >= 0


def test_pick_up_steady_and_mixed_measure_every_job() -> None:
    assert len(pickup.measure(5)) == len(pickup.measure_hop(5)) == 5
    assert 0 < steady.measure(100, 2) < 2
    assert len(mixed.measure(1, prefetch=1)) == mixed.BURST


def test_a_million_in_small_runs_each_job_once() -> None:
    found = million.measure(400, 200, 2)

    assert found["jobs"] == 800
    assert len(found["blocks"]) == 1
    assert not [fault for fault in found["faults"] if "exactly once" in fault]


def test_a_block_that_costs_more_and_memory_that_stays_break_the_promise() -> None:
    cheap, dear = Block(1, 10, 10, 5, 1), Block(1, 12, 11, 5, 1)
    small, large = Memory(1, 50, 7), Memory(9, 60, 8)

    assert million.faults(cheap, cheap, small, small) == []
    assert len(million.faults(cheap, dear, small, large)) == 4


def test_pages_of_the_marks_are_not_memory_of_the_pool(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    own, marks = psutil.Process(), Marks(path, 100_000)
    before = mapped_bytes(own.pid, path)

    marks.clear()

    assert before == 0
    assert mapped_bytes(own.pid, path) >= 100_000 * STRIDE
    assert mapped_bytes(own.pid, tmp_path / "other") == 0
    assert pss_mib([own], without=path) > 0


def test_disturbed_rounds_are_repeated_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "quiet", property(lambda _: False))
    monkeypatch.setattr("benchmarks.parts.await_quiet", lambda _: None)
    told: list[str] = []

    rows, quiet = in_rounds(Effort(rounds=2), told.append, "part", lambda: {"rate": 1.0})

    assert len(rows) == len(told) == 4
    assert not any(quiet)


def test_after_a_while_disturbed_rounds_are_only_marked() -> None:
    effort = Effort(rounds=2, repeat_until=0.0)

    assert effort.wants_more([False])
    assert not effort.wants_more([False, False])
    assert Effort(rounds=2).wants_more([False, False])
    assert not Effort(rounds=2).wants_more([True, True])


def test_every_part_is_named() -> None:
    assert list(PARTS) == ["drain", "enqueue", "pickup", "steady", "mixed", "idle", "memory", "recovery"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
