"""Requests made ready: the same bytes as the general way makes, and ids that are never made twice."""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from rqsup import Request, Task, errors
from rqsup.envelope import DRAWN, Envelope, encode, new_id
from rqsup.limits import Limits
from rqsup.retry import Backoff
from rqsup.sending import MOST_ROUTES, Packer
from rqsup.settings import LimitSettings, Settings
from rqsup.store import scripts

SETTINGS = Settings(namespace="shop", limits=LimitSettings(queue_length=7))
SEND = Task(print, "mail.send", queue="mail", backoff=Backoff(), limits=Limits(cpu=1))


def in_general(request: Request, envelope: Envelope, *, flags: bool, **when: int) -> bytes:
    """The command as `scripts.enqueue` makes it."""
    call = scripts.enqueue(
        "rqsup:{shop}:", job_id=envelope.id, queue=envelope.queue, level=envelope.level,
        envelope=encode(envelope, 1 << 20), max_length=7, **when,
    )  # fmt: skip
    return call.packed(flags=flags)


@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize(
    ("request_", "envelope", "when"),
    [
        (Request(SEND, ("é", 1), {"x": None}), {"task": "mail.send", "queue": "mail", "args": ["é", 1], "kwargs": {"x": None}}, {}),
        (Request("t", queue="q:x", priority="high"), {"task": "t", "queue": "q:x", "level": "high"}, {}),
        (Request("t", job_id="i" * 128, priority=1), {"id": "i" * 128, "task": "t", "level": "very_low"}, {}),
        (Request("t", max_attempts=3, timeout=1.5), {"task": "t", "max_attempts": 3, "timeout_s": 1.5}, {}),
        (Request("t", delay_s=1.5), {"task": "t"}, {"delay_ms": 1_500}),
        (Request("t", due_at=datetime(2030, 1, 1, tzinfo=UTC)), {"task": "t"}, {"due_ms": 1_893_456_000_000}),
    ],
)  # fmt: skip
def test_the_bytes_are_those_of_the_script(
    request_: Request, envelope: dict[str, Any], when: dict[str, int], *, flags: bool
) -> None:
    sending = Packer(SETTINGS).prepare(request_)

    whole = Envelope(**{"id": sending.job_id, **envelope})
    assert sending.packed(flags=flags) == in_general(request_, whole, flags=flags, **when)


def wrong(**fields: Any) -> Request:
    """A request with fields of types that it is not declared for."""
    return Request("t", **fields)


@pytest.mark.parametrize(
    "request_",
    [
        Request("a b"), Request("t", queue="a b"), Request("t", queue="%d"), Request("t", priority="urgent"), Request("t", priority=9),
        wrong(queue=["q"]), wrong(priority=[]), wrong(queue=5), Request("t", job_id="a\n"), Request("t" * 129),
    ],
)  # fmt: skip
def test_what_is_outside_the_rules_is_refused_each_time(request_: Request) -> None:
    packer = Packer(SETTINGS)
    for _ in range(2):
        with pytest.raises(errors.InvalidJob):
            packer.prepare(request_)


@pytest.mark.parametrize("task", [print, None, 42, b"t"])
def test_what_is_neither_a_task_nor_a_name_is_refused_with_the_way_out(task: Any) -> None:
    with pytest.raises(errors.InvalidJob, match="decorate the function with @task"):
        Packer(SETTINGS).prepare(Request(task))


def test_routes_are_remembered_in_bounded_number() -> None:
    packer = Packer(SETTINGS)
    for number in range(3 * MOST_ROUTES):
        packer.prepare(Request("t", queue=f"tenant-{number}"))

    assert len(packer._routes) <= MOST_ROUTES


def test_batches_end_at_their_jobs_or_their_bytes() -> None:
    def sizes(count: int, *arguments: Any) -> list[int]:
        sendings = (packer.prepare(Request("t", arguments)) for _ in range(count))
        return [len(batch.sendings) for batch in packer.batches(sendings)]

    packer = Packer(SETTINGS)

    assert sizes(0) == []
    assert sizes(250) == [100, 100, 50]
    assert sizes(7, "x" * 400_000) == [3, 3, 1]


@pytest.mark.parametrize("flags", [True, False])
def test_a_batchs_bytes_are_those_of_its_script(*, flags: bool) -> None:
    packer = Packer(SETTINGS)
    requests = [Request("t", (1,)), Request(SEND, priority="high", delay_s=1), Request("t", ("é",), job_id="j")]
    (batch,) = packer.batches(packer.prepare(request) for request in requests)

    calls = [
        scripts.enqueue(
            "rqsup:{shop}:", job_id=sending.job_id, queue=queue, level=level, delay_ms=delay_ms,
            envelope=encode(envelope, 1 << 20),
        )
        for sending, queue, level, delay_ms, envelope in zip(
            batch.sendings, ("default", "mail", "default"), ("normal", "high", "normal"), (0, 1_000, 0),
            (
                Envelope(id=batch.sendings[0].job_id, task="t", args=[1]),
                Envelope(id=batch.sendings[1].job_id, task="mail.send", queue="mail", level="high"),
                Envelope(id="j", task="t", args=["é"]),
            ),
            strict=True,
        )
    ]  # fmt: skip
    general = scripts.enqueue_many("rqsup:{shop}:", calls, max_length=7)
    assert batch.packed(flags=flags) == general.packed(flags=flags)


# Ids.


def test_ids_are_uuids_of_version_7_and_sortable() -> None:
    before = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_id()) for _ in range(3 * DRAWN)]
    after = time.time_ns() // 1_000_000

    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    stamps = [one.int >> 80 for one in ids]
    assert stamps == sorted(stamps)
    assert before <= stamps[0] <= stamps[-1] <= after


def test_threads_make_no_id_twice() -> None:
    made: list[list[str]] = [[] for _ in range(8)]
    threads = [threading.Thread(target=lambda out=out: out.extend(new_id() for _ in range(5_000))) for out in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({one for out in made for one in out}) == 40_000


def test_forked_processes_make_no_id_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    # One time for all, so that only the random parts tell the ids apart.
    monkeypatch.setattr("rqsup.envelope.time.time_ns", lambda: 1_700_000_000_000_000_000)
    new_id()
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()
    children = [context.Process(target=lambda: answers.put([new_id() for _ in range(200)])) for _ in range(2)]
    for child in children:
        child.start()
    made = [new_id() for _ in range(200)] + answers.get() + answers.get()
    for child in children:
        child.join(30)

    assert len(set(made)) == 600
