"""The producer on a real server: what it sends, when it waits, and that nothing is lost or doubled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client
from rqsup.envelope import decode
from rqsup.errors import ConfigError, InvalidJob, RedisUnavailable
from rqsup.producer import Producer, Progress, faults
from rqsup.request import Request
from rqsup.settings import ProducerSettings
from rqsup.store.server import LocalServer
from tests.waiting import wait_until


def make(root: Path, count: int) -> Path:
    for number in range(count):
        (root / f"f{number:05d}").touch()
    return root


def settings(root: Path, **options: Any) -> ProducerSettings:
    given: dict[str, Any] = {"root": str(root), "task": "files.digest", "queue": "files"} | options
    return ProducerSettings(**given)


def ready(client: Client, level: str = "normal") -> int:
    return int(client.store.client.llen(client.keys.ready(f"files:{level}")))


def envelopes(client: Client, level: str = "normal") -> list[Any]:
    ids = client.store.client.lrange(client.keys.ready(f"files:{level}"), 0, -1)
    return [decode(client.record(str(job_id, "ascii")).envelope) for job_id in ids]


@contextmanager
def running(producer: Producer, stop: threading.Event) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=producer.run)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def test_each_file_becomes_one_job_with_its_absolute_path(client: Client, tmp_path: Path) -> None:
    make(tmp_path, 5)

    progress = Producer(client, settings(tmp_path, batch=2), stop=threading.Event()).run()

    assert progress == Progress(found=5, sent=5)
    assert sorted(one.args[0] for one in envelopes(client)) == sorted(
        str(path) for path in tmp_path.resolve().iterdir()
    )
    assert {(one.task, one.queue) for one in envelopes(client)} == {("files.digest", "files")}


def test_the_first_glob_that_matches_gives_the_level(client: Client, tmp_path: Path) -> None:
    for name in ("a.log", "b.txt", "c.txt", "d"):
        (tmp_path / name).touch()
    levels = {"b.*": "critical", "*.txt": "high", "*.log": "low"}

    Producer(client, settings(tmp_path, levels=levels), stop=threading.Event()).run()

    assert {level: ready(client, level) for level in ("critical", "high", "normal", "low")} == {
        "critical": 1, "high": 1, "normal": 1, "low": 1,
    }  # fmt: skip
    assert envelopes(client, "critical")[0].args[0].endswith("/b.txt")


def test_what_was_accepted_and_left_out_is_told(client: Client, tmp_path: Path) -> None:
    make(tmp_path, 5)
    (tmp_path / "out").symlink_to("/etc/passwd")
    sent: list[Request] = []
    seen: list[Progress] = []

    Producer(
        client, settings(tmp_path, batch=2, exclude=["f00000"]), stop=threading.Event(), on_sent=sent.extend,
        on_progress=seen.append,
    ).run()  # fmt: skip

    assert all(client.get(str(request.job_id)).state == "ready" for request in sent)
    assert seen[-1] == Progress(found=4, sent=4, excluded=1, refused=1)
    assert [progress.sent for progress in seen] == [2, 4, 4]


def test_it_pauses_while_the_queue_is_full_and_goes_on_as_it_falls(client: Client, tmp_path: Path) -> None:
    make(tmp_path, 50)
    stop = threading.Event()
    producer = Producer(client, settings(tmp_path, max_queue_length=20, batch=8), stop=stop)
    lane = client.keys.ready("files:normal")

    with running(producer, stop) as thread:
        wait_until(lambda: ready(client) == 20, what="a full queue")
        client.store.client.ltrim(lane, 0, 4)
        wait_until(lambda: producer.progress.sent == 35, what="15 more jobs")
        assert ready(client) == 20

        client.store.client.delete(lane)
        wait_until(lambda: not thread.is_alive(), what="the end of the run")
    assert producer.progress.sent == 50


def test_jobs_of_every_level_count_for_a_full_queue(client: Client, tmp_path: Path) -> None:
    make(tmp_path, 10)
    stop = threading.Event()
    client.store.client.lpush(client.keys.ready("files:low"), "x", "y", "z")
    producer = Producer(client, settings(tmp_path, max_queue_length=7), stop=stop)

    with running(producer, stop):
        wait_until(lambda: producer.progress.sent == 4, what="4 jobs beside the 3 that are there")


@pytest.mark.parametrize("options", [{"max_queue_length": 1}, {"rate": 0.01, "burst": 1}])
def test_stop_ends_a_pause(client: Client, tmp_path: Path, options: dict[str, Any]) -> None:
    make(tmp_path, 3)
    stop = threading.Event()
    producer = Producer(client, settings(tmp_path, **options), stop=stop)

    with running(producer, stop) as thread:
        wait_until(lambda: producer.progress.sent == 1, what="the first job")
        stop.set()
        thread.join(30)

        # By itself it would end after a hundred seconds, or never.
        assert not thread.is_alive()
    assert producer.progress.sent == 1


def test_a_stop_before_the_start_sends_nothing(client: Client, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()

    assert Producer(client, settings(make(tmp_path, 3)), stop=stop).run().sent == 0


def test_the_rate_holds_after_the_burst(client: Client, tmp_path: Path) -> None:
    make(tmp_path, 60)
    began = time.monotonic()

    Producer(client, settings(tmp_path, rate=100, burst=20), stop=threading.Event()).run()

    assert time.monotonic() - began > 0.39


def test_a_restart_of_redis_in_the_middle_loses_and_doubles_nothing(private_redis: LocalServer, tmp_path: Path) -> None:
    make(tmp_path, 3000)
    sent: list[Request] = []
    stop = threading.Event()
    with Client(private_redis.url) as client:
        producer = Producer(client, settings(tmp_path, batch=10, rate=3000), stop=stop, on_sent=sent.extend)
        with running(producer, stop) as thread:
            wait_until(lambda: producer.progress.sent > 200, what="the first jobs")
            private_redis.kill()
            private_redis.start()
            wait_until(lambda: not thread.is_alive(), timeout_s=30, what="the end of the run")

        stored = [one.args[0] for one in envelopes(client)]

    assert len(sent) == 3000
    assert len(stored) == len(set(stored)) == 3000


def test_a_reply_that_was_lost_does_not_double_its_jobs(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 4)
    monkeypatch.setattr(client, "enqueue_many", _reply_lost_once(client.enqueue_many))

    progress = Producer(client, settings(tmp_path), stop=threading.Event()).run()

    assert (progress.sent, ready(client)) == (4, 4)


def test_a_refusal_that_may_pass_is_tried_again_and_logged(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, 1)
    lane, stop = client.keys.ready("files:normal"), threading.Event()
    client.store.client.set(lane, "no list")
    producer = Producer(client, settings(tmp_path), stop=stop)

    with running(producer, stop) as thread, caplog.at_level(logging.WARNING):
        wait_until(lambda: "not accepted, trying again (1)" in caplog.text, what="a warning")
        client.store.client.delete(lane)
        wait_until(lambda: not thread.is_alive(), what="the end of the run")
    assert ready(client) == 1


def test_what_sending_again_cannot_cure_is_raised(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, 1)
    producer = Producer(client, settings(tmp_path), stop=threading.Event())
    monkeypatch.setattr(client, "enqueue_many", _raise_invalid)

    with pytest.raises(InvalidJob):
        producer.run()


def test_stop_ends_the_waiting_for_a_redis_that_stays_away(private_redis: LocalServer, tmp_path: Path) -> None:
    make(tmp_path, 1)
    stop = threading.Event()
    with Client(private_redis.url) as client:
        private_redis.kill()
        producer = Producer(client, settings(tmp_path, max_queue_length=0), stop=stop)

        with running(producer, stop) as thread:
            stop.set()
            thread.join(1)
            assert not thread.is_alive()
    assert producer.progress.sent == 0


def test_all_faults_of_the_settings_are_told_together(client: Client) -> None:
    broken = ProducerSettings(root="/etc/passwd", task="", include=["/x"], exclude=["a/"], levels={"*": "urgent"})

    with pytest.raises(ConfigError) as caught:
        Producer(client, broken, stop=threading.Event())

    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "producer.root", "producer.task", "producer.include", "producer.exclude", "producer.levels",
    ]  # fmt: skip
    assert "'urgent'; choose one of critical, very_high" in str(caught.value)


def test_a_missing_root_and_a_task_name_outside_the_alphabet_are_faults(tmp_path: Path) -> None:
    assert faults(ProducerSettings(task="a")) == ["producer.root: name the directory to walk"]
    assert "producer.task: task name 'a b' is not allowed" in faults(settings(tmp_path, task="a b"))[0]


def test_a_root_that_may_not_be_read_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root

    assert faults(settings(tmp_path)) == [f"producer.root: {tmp_path} cannot be read by this user"]


def _reply_lost_once(send: Callable[[list[Request]], Any]) -> Callable[[list[Request]], Any]:
    tries = iter([True])

    def enqueue_many(requests: list[Request]) -> Any:
        jobs = send(requests)
        if next(tries, False):
            raise RedisUnavailable("the connection broke before the reply came")
        return jobs

    return enqueue_many


def _raise_invalid(_: list[Request]) -> Any:
    raise InvalidJob("no such thing")
