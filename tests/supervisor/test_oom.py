"""OOM kills are told from others by the kernel's counters, v2, v1 or the machine's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rqsup.supervisor.oom import OomWatch, Tally
from rqsup.workers.oom import candidates, find_counter, read_count

V1 = "35 24 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n36 24 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
V2 = "29 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"


@pytest.mark.parametrize(
    ("groups", "mounts", "expected"),
    [
        ("0::/a.slice/b", V2, ["/sys/fs/cgroup/a.slice/b/memory.events"]),
        ("0::/", V2, ["/sys/fs/cgroup/memory.events"]),
        ("4:memory:/x\n1:cpu:/y\n0::/", V1, ["/sys/fs/cgroup/memory/x/memory.oom_control"]),
        ("3:cpu,memory:/x", V1, ["/sys/fs/cgroup/memory/x/memory.oom_control"]),
        ("0::/docker/c/d", V2.replace(" / /sys", " /docker/c /sys"), ["/sys/fs/cgroup/d/memory.events"]),
        ("1:cpu:/y", V1, []),
        ("", "", []),
    ],
)
def test_the_counter_is_found_in_the_cgroup_of_the_process(groups: str, mounts: str, expected: list[str]) -> None:
    assert [str(path) for path in candidates(groups, mounts)] == expected


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("low 0\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7),
        ("", None),
    ],
)
def test_the_count_is_read_from_either_version(tmp_path: Path, text: str, count: int | None) -> None:
    (tmp_path / "events").write_text(text)

    assert read_count(tmp_path / "events") == count
    assert read_count(tmp_path / "missing") is None


def test_each_kill_explains_one_death(tmp_path: Path) -> None:
    counter = tmp_path / "events"
    counter.write_text("oom_kill 5\n")
    watch = OomWatch({counter: Tally(5, 5)})

    assert watch.explains(counter) is False
    counter.write_text("oom_kill 6\n")
    assert [watch.explains(counter), watch.explains(counter)] == [True, False]


def test_a_kill_that_no_death_claims_in_two_ticks_is_forgotten(tmp_path: Path) -> None:
    counter = tmp_path / "events"
    counter.write_text("oom_kill 1\n")
    watch = OomWatch({counter: Tally(0, 0)})

    watch.tick()
    assert watch.explains(counter) is True
    counter.write_text("oom_kill 2\n")
    watch.tick()
    watch.tick()

    assert watch.explains(counter) is False


def test_without_a_counter_nothing_is_claimed(tmp_path: Path) -> None:
    assert OomWatch().explains(None) is None
    gone = OomWatch({tmp_path / "gone": Tally(0, 0)})
    gone.tick()
    assert gone.explains(tmp_path / "gone") is None


def test_this_very_process_has_a_counter_or_the_machines() -> None:
    path = OomWatch().counter_of(os.getpid())

    assert path in {find_counter(os.getpid()), Path("/proc/vmstat")}
    assert read_count(path) is not None
