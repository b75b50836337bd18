"""The view of `rqsup top`: rates and order, keys, and that it fits 80 by 24."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from rqsup.supervisor.cli.top_data import Look, pool_rows, queue_rows, worker_rows
from rqsup.supervisor.cli.top_screen import DOWN, ENTER, ESCAPE, PAGE_DOWN, UP, Screen, press
from rqsup.supervisor.cli.top_view import job_frame, list_frame
from rqsup.supervisor.snapshot import Snapshot, WorkerView


def worker(
    number: int, *, task: str | None = None, age_s: float | None = None, memory: int = 0, ended: int = 0
) -> WorkerView:
    return WorkerView(
        number=number, id=f"h.1.{number}", pid=4_000_000 + number, generation=12, state="busy" if task else "idle", task=task,
        job_id="01a20055-ba34-7233-a23c-e4102238162f" if task else None, job_age_s=age_s, age_s=1.0,
        memory_bytes=memory, succeeded=ended, retried=0, buried=0,
    )  # fmt: skip


def look(at: float, *workers: WorkerView, succeeded: int = 0, retried: int = 0, pid: int = 7) -> Look:
    snapshot = Snapshot(
        version=1, pool="a-pool-with-a-long-name", namespace="n", pid=pid, generation=12, state="running", target=len(workers),
        ready=len(workers), busy=1, uptime_s=90_000, redis_url="", redis_ok=True, redis_fault="", metrics_address="",
        last_reload="", degraded="", counters={"succeeded": succeeded, "retried": retried}, workers=list(workers),
        recoveries=[],
    )  # fmt: skip
    return Look(snapshot.pool, at, snapshot, ready={"mail": {"high": 1_234_567}, "b": {}}, scheduled=3, dead=1)


def test_rates_are_per_second_between_two_looks_at_the_same_master() -> None:
    [row] = pool_rows([look(10, succeeded=100)], [look(12, succeeded=140, retried=10)])
    assert (row.ended_per_s, row.failed_per_s) == (25, 5)
    [other] = pool_rows([look(10, succeeded=100)], [look(12, pid=8)])
    assert other.ended_per_s is None
    [first] = pool_rows([], [look(12)])
    assert first.ended_per_s is None


@pytest.mark.parametrize(
    ("order", "expected"), [("number", [1, 2, 3]), ("job age", [3, 2, 1]), ("memory", [2, 1, 3]), ("task", [2, 3, 1]), ("rate", [1, 2, 3])]
)  # fmt: skip
def test_workers_stand_in_the_chosen_order(order: str, expected: list[int]) -> None:
    before = look(10, worker(1), worker(2), worker(3))
    now = look(11, worker(1, ended=9), worker(2, task="a", age_s=1, memory=5), worker(3, task="b", age_s=2))

    rows = worker_rows([before], [now], order, reverse=False)

    assert [row.worker.number for row in rows] == expected
    assert [row.worker.number for row in worker_rows([before], [now], order, reverse=True)] == expected[::-1]


def test_keys_move_sort_open_and_leave() -> None:
    numbers = [1, 2, 3, 12]

    screen = press(press(Screen(), DOWN, numbers), PAGE_DOWN, numbers)
    assert screen.chosen == 3
    assert press(screen, UP, numbers).chosen == 2
    assert press(press(screen, "1", numbers), "2", numbers).chosen == 3
    assert press(screen, "3", numbers).chosen == 2
    by_age = press(screen, "a", numbers)
    assert (by_age.order, by_age.reverse, press(by_age, "a", numbers).reverse) == ("job age", False, True)
    opened = press(screen, ENTER, numbers)
    assert opened.job_open
    assert press(opened, DOWN, numbers).scroll == 1
    assert not press(opened, ESCAPE, numbers).job_open
    assert press(opened, "q", numbers).over
    assert not press(Screen(), ENTER, []).job_open


def drawn(frame: object, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=24)
    with console.capture() as capture:
        console.print(frame)
    return capture.get().rstrip("\n").split("\n")


@pytest.mark.parametrize("count", [0, 1, 12, 1000])
@pytest.mark.parametrize("width", [80, 160])
def test_any_number_of_workers_fits_the_terminal(count: int, width: int) -> None:
    many = [
        worker(n, task="reports.quarterly.make_them_all", age_s=7384, memory=2**33, ended=99)
        for n in range(1, count + 1)
    ]
    now = look(11, *many)
    rows = worker_rows([look(10)], [now], "number", reverse=False)
    screen = Screen(chosen=max(0, count - 1))

    lines = drawn(list_frame(pool_rows([now], [now]), queue_rows([now]), rows, screen, width=width, height=24), width)

    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "1,234,567" in text
    assert "q quit" in lines[-1]
    if count:
        assert f"{4_000_000 + count}" in text


def test_a_pool_that_does_not_answer_says_why() -> None:
    down = Look("shop", 1.0, fault="no master listens on /run/x\x1b[2J")

    text = "\n".join(drawn(list_frame(pool_rows([], [down]), [], [], Screen(), width=80, height=24)))

    assert "shop" in text
    assert "no master" in text
    assert "\x1b[2J" not in text


def test_a_long_record_scrolls() -> None:
    lines = [f"line {number}" for number in range(100)]

    shown = drawn(job_frame("job x", lines, Screen(job_open=True, scroll=500), width=80, height=24))

    assert len(shown) == 24
    assert "line 99" in shown[-2]


def test_a_look_is_plain_data() -> None:
    assert msgspec.to_builtins(look(1, worker(1)))["snapshot"]["workers"][0]["number"] == 1
