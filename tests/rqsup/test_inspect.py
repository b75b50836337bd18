"""What operators look at: numbers, next jobs, dead letters."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rqsup import Client, Request
from rqsup.inspect import check, dead_letters, find_letter, key_stats, peek, purge_dead, replay, stats
from tests.rqsup.store.raw import Raw

ERROR = b'{"type": "ValueError", "message": "no such address", "traceback": "Traceback\\n ...", "host": "h1"}'


@pytest.fixture
def raw(client: Client) -> Raw:
    raw = Raw(client)
    raw.register("w")
    return raw


def bury(raw: Raw, job_id: str, task: str = "t") -> None:
    raw.client.send(Request(task, job_id=job_id, queue="q"))
    raw.settle(raw.claim().jobs[0], "bury", ERROR, 0)


def test_stats_count_each_place(raw: Raw) -> None:
    bury(raw, "dead")
    raw.enqueue("active")
    raw.claim()
    raw.enqueue("later", delay_ms=60_000)
    raw.enqueue("a", queue="mail", level="high")
    raw.enqueue("b", queue="mail", level="low")
    raw.redis.hset(raw.keys.job("b"), "enqueued_at", raw.now_ms() - 5_000)

    seen = stats(raw.client.store, raw.keys)

    assert [queue.name for queue in seen.queues] == ["mail", "q"]
    mail, q = seen.queues
    assert mail.ready == {"critical": 0, "very_high": 0, "high": 1, "normal": 0, "low": 1, "very_low": 0}
    assert (mail.total, q.total, q.oldest_s) == (2, 0, None)
    assert mail.oldest_s is not None
    assert 5 <= mail.oldest_s < 10
    assert (seen.scheduled, seen.active, seen.dead) == (1, 1, 1)
    assert seen.counters["accepted"] == 5


def test_stats_show_the_registry(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim("w")
    raw.register("idle", "silent")
    raw.claim("idle", wait=True)
    raw.redis.set(raw.keys.worker("idle"), '{"pid": 7}')
    raw.redis.set(raw.keys.worker("w"), "no json")
    raw.redis.delete(raw.keys.worker("silent"))

    workers = {worker.id: worker for worker in stats(raw.client.store, raw.keys).workers}

    assert (workers["w"].holds, workers["w"].waiting, workers["w"].details) == (1, False, None)
    assert (workers["idle"].waiting, workers["idle"].details) == (True, {"pid": 7})
    assert workers["silent"].details is None


def test_peek_shows_the_order_in_which_jobs_are_taken(raw: Raw) -> None:
    for number, level in enumerate(("low", "high", "normal", "high")):
        raw.enqueue(f"j{number}", level=level)

    shown = [job.id for job in peek(raw.client.store, raw.keys, "q", 3)]

    assert shown == ["j1", "j3", "j2"]
    assert [job.id for job in raw.claim(count=3).jobs] == shown


def test_a_peeked_job_tells_task_age_and_the_beginning_of_its_arguments(raw: Raw) -> None:
    raw.client.send(Request("mail.send", ("x" * 500,), {"n": 1}, queue="q"))
    raw.client.send(Request("mail.send", ("a",), {"n": 1}, queue="q"))

    long, short = peek(raw.client.store, raw.keys, "q")

    assert (short.task, short.level, short.attempts, short.arguments) == ("mail.send", "normal", 0, '"a", n=1')
    assert short.age_s is not None
    assert 0 <= short.age_s < 5
    assert len(long.arguments) == 200
    assert long.arguments.endswith("…")


def test_junk_in_a_queue_can_be_peeked_at(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), b"\xff", "odd")
    raw.spoil(raw.keys.job("odd"))

    assert [(job.id, job.task) for job in peek(raw.client.store, raw.keys, "q")] == [("\udcff", None), ("odd", None)]


def test_a_dead_letter_tells_what_happened_where(raw: Raw) -> None:
    bury(raw, "a", task="mail.send")

    [letter] = dead_letters(raw.client.store, raw.keys)

    assert (letter.id, letter.task, letter.queue, letter.attempts) == ("a", "mail.send", "q", 1)
    assert (letter.error_type, letter.error_message, letter.traceback) == (
        "ValueError",
        "no such address",
        "Traceback\n ...",
    )
    assert (letter.reason, letter.worker, letter.host) == ("ValueError: no such address", "w", "h1")
    assert abs(letter.dead_at_ms - raw.now_ms()) < 5_000
    assert letter.payload is None


def test_a_quarantined_job_tells_its_reason_and_the_host_of_the_crash(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    raw.redis.hset(raw.keys.job("a"), "crashes", 2)
    raw.recover(charged="a")
    raw.redis.hset(raw.keys.job("a"), "crash", '{"host": "h2", "message": "segmentation fault", "stack": "in send"}')

    [letter] = dead_letters(raw.client.store, raw.keys)

    assert "crash limit" in letter.reason
    assert (letter.host, letter.crash, letter.stack) == ("h2", "segmentation fault", "in send")
    assert letter.attempts == 3


def test_an_undecodable_payload_is_shown_as_it_is(raw: Raw) -> None:
    raw.enqueue("a")
    raw.redis.hset(raw.keys.job("a"), "envelope", b"\xff not json")
    raw.settle(raw.claim().jobs[0], "bury", ERROR, 0)

    [letter] = dead_letters(raw.client.store, raw.keys)

    assert (letter.task, letter.payload) == (None, b"\xff not json")


def test_a_letter_without_a_record_is_listed(raw: Raw) -> None:
    raw.redis.zadd(raw.keys.dead, {b"\xff": 5})

    [letter] = dead_letters(raw.client.store, raw.keys)

    assert (letter.id, letter.dead_at_ms) == ("\udcff", 5)
    assert "unreadable" in letter.reason
    assert find_letter(raw.client.store, raw.keys, "\udcff") == letter


def test_letters_come_in_pages_the_newest_first(raw: Raw) -> None:
    for number in range(4):
        bury(raw, f"j{number}")
        raw.redis.zadd(raw.keys.dead, {f"j{number}": number})

    assert [letter.id for letter in dead_letters(raw.client.store, raw.keys, 1, 2)] == ["j2", "j1"]
    assert find_letter(raw.client.store, raw.keys, "none") is None


def test_named_letters_are_replayed_and_the_others_told(raw: Raw) -> None:
    bury(raw, "a")
    bury(raw, "b")
    raw.redis.zadd(raw.keys.dead, {"ghost": 1})

    result = replay(raw.client.store, raw.keys, ["a", "ghost", "none"])

    assert (result.replayed, result.missing, result.unreadable, result.refused) == (["a"], ["none"], ["ghost"], {})
    assert raw.ready() == ["a"]
    assert set(raw.dead()) == {"ghost", "b"}


def test_all_letters_of_one_task_are_replayed(raw: Raw) -> None:
    bury(raw, "a", task="one")
    bury(raw, "b", task="two")
    bury(raw, "c", task="one")

    assert sorted(replay(raw.client.store, raw.keys, task="one").replayed) == ["a", "c"]
    assert raw.dead() == ["b"]


def test_a_letter_that_cannot_be_put_back_is_kept_and_told(raw: Raw) -> None:
    bury(raw, "a")
    raw.spoil(raw.keys.ready("q:normal"))

    result = replay(raw.client.store, raw.keys)

    assert "WRONGTYPE" in result.refused["a"]
    assert raw.dead() == ["a"]


def test_purge_deletes_every_letter_over_many_rounds(raw: Raw) -> None:
    for number in range(1_100):
        raw.redis.zadd(raw.keys.dead, {f"j{number}": number})

    assert purge_dead(raw.client.store, raw.keys) == 1_100
    assert raw.dead() == []


def test_key_stats_list_the_keys_with_their_sizes(raw: Raw) -> None:
    raw.enqueue("a")
    raw.spoil(raw.keys.waiting)

    rows = {row.key: row for row in key_stats(raw.client.store, raw.keys)}

    assert (rows["ready:q:normal"].kind, rows["ready:q:normal"].entries) == ("list", 1)
    assert (rows["ready:q:normal"].bytes or 0) > 0
    assert (rows["waiting"].kind, rows["waiting"].entries) == ("string", 1)
    assert (rows["job:*"].entries, rows["job:*"].bytes) == (1, None)
    assert "scheduled" not in rows


def test_key_stats_do_without_the_right_to_ask_for_memory(raw: Raw) -> None:
    raw.enqueue("a")
    raw.redis.acl_setuser(
        "nomemory", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-memory"]
    )
    with Client(
        raw.client.settings.redis.url.replace("unix://", "unix://nomemory@"), namespace=raw.keys.namespace
    ) as limited:
        rows = key_stats(limited.store, limited.keys)
    raw.redis.acl_deluser("nomemory")

    assert rows
    assert all(row.bytes is None for row in rows)


@pytest.mark.slow
def test_two_hundred_thousand_jobs_are_checked_in_reasonable_time_and_memory(raw: Raw) -> None:
    for start in range(0, 200_000, 5_000):
        with raw.redis.pipeline(transaction=False) as pipeline:
            for number in range(start, start + 5_000):
                pipeline.hset(
                    raw.keys.job(f"{number:036}"), mapping={"state": "ready", "queue": "q", "level": "normal"}
                )
            pipeline.lpush(raw.keys.ready("q:normal"), *(f"{number:036}" for number in range(start, start + 5_000)))
            pipeline.execute()
    raw.redis.sadd(raw.keys.queues, "q")
    before_kib, begun = _peak_kib(), time.process_time()

    report = check(raw.client.store, raw.keys)

    assert (report.faults, report.counts["ready"]) == ([], 200_000)
    assert time.process_time() - begun < 30
    assert _peak_kib() - before_kib < 200 * 1024


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
