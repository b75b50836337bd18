"""Jobs that crash, hang, escape and exhaust: each ends in its documented state, the others are unharmed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rqsup import Client, Job, JobRecord, JobState
from rqsup.request import Request
from tests.system.conftest import Start
from tests.system.daemon import is_alive
from tests.waiting import wait_until

#: Task, state at the end, text that its record must hold.
ENDINGS = (
    ("probe.segfault", "crash limit", "segmentation fault (SIGSEGV)"),
    ("probe.exit_hard", "crash limit", "exited with status 0 in the middle of the job"),
    ("probe.hog", "crash limit", "hard timeout: ran"),
    ("probe.deaf", "crash limit", "hard timeout: ran"),
    ("probe.exhaust_memory", "MemoryError", "MemoryError"),
    ("probe.loop_for_ever", "JobTimeout", "allowed are 0.2 s"),
    ("probe.exit_python", "SystemExit", "I want out"),
    ("probe.raise_base", "BaseException", "from the base"),
    ("probe.interrupt", "KeyboardInterrupt", ""),
    ("probe.no_such_task", "UnknownTask", "no task 'probe.no_such_task'"),
)


@pytest.mark.slow
def test_each_hostile_job_ends_with_its_cause_in_words_and_harms_no_other(
    start: Start, client: Client, assert_clean: Callable[[], None]
) -> None:
    start(workers={"count": 4, "kill_grace": 0.3, "crash_limit": 2, "unknown_task_patience": 1.5})

    hostile = [client.enqueue(name) for name, _, _ in ENDINGS]
    innocent = [client.enqueue("probe.nap", 0.02) for _ in range(100)]

    for job, (name, kind, words) in zip(hostile, ENDINGS, strict=True):
        record = _wait_dead(job)
        told = f"{record.reason} {record.crash} {record.error}"
        assert kind in told, (name, told)
        assert words in told, (name, told)
    # A job that waited behind a crashing one goes back uncharged: it is its first attempt still.
    assert {job.result(30)["attempt"] for job in innocent} == {1}
    assert_clean()


def test_crashes_and_errors_are_counted_apart(start: Start, client: Client) -> None:
    start(workers={"crash_limit": 3})

    crashed, failed = client.enqueue("probe.segfault"), client.enqueue("probe.fail", "broken")

    assert (_wait_dead(crashed).crashes, _wait_dead(crashed).errors) == (3, 0)
    assert (_wait_dead(failed).crashes, _wait_dead(failed).errors) == (0, 3)


def test_dead_letter_tells_where_and_why(start: Start, client: Client) -> None:
    daemon = start()

    error = _wait_dead(client.enqueue("probe.fail", "broken pipe organ")).error or {}

    assert error["type"] == "ValueError"
    assert error["message"] == "broken pipe organ"
    assert "raise ValueError(text)" in error["traceback"]
    assert error["attempt"] == 3
    assert error["pid"] in {worker["pid"] for worker in daemon.workers()}
    assert error["host"]
    assert error["worker"]


def test_undecodable_payload_goes_to_the_dead_letters_with_its_raw_bytes(start: Start, client: Client) -> None:
    start()
    job = client.enqueue_in(600, "probe.nap", 0)
    raw = b"\x80\x05\x95cos\nsystem\n\xff"
    client.store.client.hset(client.keys.job(job.id), "envelope", raw)

    client.store.client.zadd(client.keys.scheduled, {job.id: 1})
    # A score changed by hand sends no message, so this does.
    wait_until(lambda: client.store.client.publish(client.keys.due, 1), what="a scheduler that listens")

    record = _wait_dead(job)
    assert record.envelope == raw
    assert "undecodable payload" in str(record.error)


def test_processes_that_a_job_left_behind_die_with_their_worker(start: Start, client: Client, tmp_path: Path) -> None:
    start(workers={"crash_limit": 1})
    note = tmp_path / "pid"

    client.enqueue("probe.grandchild", str(note))

    pid = int(wait_until(lambda: note.exists() and note.read_text(), what="the grandchild"))
    wait_until(lambda: not is_alive(pid), what="the grandchild's end")


def test_async_handlers_run(start: Start, client: Client) -> None:
    start()

    assert client.enqueue("probe.nap_async", 0.01).result(30) == "awake"


def test_context_tells_the_lease_state(start: Start, client: Client) -> None:
    start(workers={"lease_ttl": 6})

    left_s, lost = client.enqueue("probe.lease").result(30)

    assert 0 < left_s <= 6
    assert lost is False


def test_attempts_of_an_envelope_override_the_task(start: Start, client: Client) -> None:
    start()

    job = client.send(Request("probe.fail", ("once",), max_attempts=1))

    assert _wait_dead(job).errors == 1


def _wait_dead(job: Job) -> JobRecord:
    wait_until(lambda: job.refresh().state is JobState.DEAD, timeout_s=60, what=f"the end of {job.record}")
    return job.refresh().record or pytest.fail("no record")
