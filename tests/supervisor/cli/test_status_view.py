from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from rqsup.supervisor.cli.status_view import duration, show
from rqsup.supervisor.snapshot import Snapshot
from tests.supervisor.ports.pictures import busy_worker, snapshot, worker


def shown(picture: Snapshot, width: int) -> str:
    out = io.StringIO()
    show(picture, Console(file=out, width=width))
    return out.getvalue()


def test_nothing_is_cut_or_wrapped_at_80_columns_but_long_names() -> None:
    text = shown(
        snapshot(workers=[busy_worker(1, task="shop.newsletter.send_everything_today"), worker(10, pid=4194303)]), 80
    )

    assert all(len(line) <= 80 for line in text.splitlines())
    assert " 1    40001    3  busy   shop.newsletter.send_…  …456789ab  12s  2h 3m  22.9 MiB\n" in text
    assert "10  4194303    3  idle   -                       -            -  2h 3m  22.9 MiB\n" in text


def test_job_ids_are_whole_on_a_wide_terminal() -> None:
    assert "0199a1b2-c3d4-7e5f-8a6b-0123456789ab  12s" in shown(snapshot(), 130)


def test_workers_stand_in_order_of_their_numbers() -> None:
    text = shown(snapshot(workers=[worker(3), worker(1, generation=4), worker(1)]), 80)

    assert [line.split()[:3] for line in text.splitlines()[-3:]] == [
        ["1", "40001", "3"],
        ["1", "40001", "4"],
        ["3", "40003", "3"],
    ]


def test_what_is_not_known_is_a_dash() -> None:
    text = shown(snapshot(workers=[worker(1, pid=0, memory_bytes=0, age_s=0.0)]), 80)

    assert text.splitlines()[-1].split() == ["1", "-", "3", "idle", "-", "-", "-", "0.0s", "-"]


def test_trouble_stands_in_the_headline() -> None:
    text = shown(
        snapshot(
            state="degraded", degraded="3 workers died before they were ready", redis_ok=False, redis_fault="refused",
            last_reload="failed: [app] has an error", recoveries=[], metrics_address="",
        ),
        80,
    )  # fmt: skip

    assert "pool mail is degraded: 4/4 ready" in text
    assert "degraded: 3 workers died before they were ready\n" in text
    assert "away (refused)" in text
    assert "last reload: failed: [app] has an error\n" in text
    assert "recovery" not in text
    assert "metrics" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (9.94, "9.9s"), (59.9, "59s"), (60, "1m 0s"), (3599, "59m 59s"), (7384, "2h 3m"), (200_000, "2d 7h")],
)
def test_lengths_of_time_show_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"target_by": "operator", "configured": 2}, "configured are 2: ends with rqsup scale --reset"),
        ({"target_by": "autoscale", "configured": 2}, "autoscale wants 4 workers now, configured are 2"),
        ({"state": "shedding", "shedding": "memory pressure: 9 %"}, "takes no jobs: memory pressure: 9 %"),
    ],
)
def test_who_decides_and_why_nothing_runs_is_shown(facts: dict[str, Any], words: str) -> None:
    assert words in shown(msgspec.structs.replace(snapshot(), **facts), 100)
    assert "scale" not in shown(snapshot(), 100)
