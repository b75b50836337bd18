"""The client: what an application sees, on a real server."""

from __future__ import annotations

import logging
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rqsup import AsyncClient, Client, JobState, Request, Task, errors
from rqsup.envelope import decode
from rqsup.settings import RedisSettings, Settings
from rqsup.store.server import LocalServer
from tests.rqsup.store.raw import Raw

SEND = Task(print, "mail.send", queue="mail", max_attempts=3)


def with_limits(client: Client, **limits: int) -> Client:
    settings = msgspec.structs.replace(
        client.settings, limits=msgspec.structs.replace(client.settings.limits, **limits)
    )
    return Client(settings=settings)


@pytest.fixture
def raw(client: Client) -> Raw:
    raw = Raw(client)
    raw.register("w")
    return raw


# Sending.


def test_a_job_arrives_as_it_was_sent(client: Client) -> None:
    job = client.enqueue(SEND, "a@example.org", subject="hi")

    record = client.record(job.id)
    envelope = decode(record.envelope)
    assert (record.state, record.queue, record.level) == (JobState.READY, "mail", "normal")
    assert (envelope.id, envelope.task, envelope.args, envelope.kwargs) == (
        job.id,
        "mail.send",
        ["a@example.org"],
        {"subject": "hi"},
    )
    # Unset, so that a worker goes by the task's own declaration.
    assert (envelope.max_attempts, envelope.timeout_s) == (None, None)


def test_a_task_is_sent_by_its_name_where_its_code_is_not_at_hand(client: Client) -> None:
    job = client.enqueue("mail.send", 1)

    assert (client.record(job.id).task, client.record(job.id).queue) == ("mail.send", "default")


def test_a_jobs_id_is_a_uuid_of_version_7(client: Client) -> None:
    assert uuid.UUID(client.enqueue("t").id).version == 7


def test_a_request_overrides_what_the_task_declares(client: Client) -> None:
    job = client.send(Request(SEND, job_id="mine", queue="q", priority="critical", max_attempts=9, timeout=1.5))

    envelope = decode(client.record("mine").envelope)
    assert job.id == "mine"
    assert (envelope.queue, envelope.level, envelope.max_attempts, envelope.timeout_s) == ("q", "critical", 9, 1.5)


def test_an_id_that_was_accepted_before_is_accepted_once(client: Client) -> None:
    for _ in range(3):
        assert client.send(Request("t", job_id="mine")).id == "mine"

    assert Raw(client).ready("default:normal") == ["mine"]


@pytest.mark.parametrize(
    "request_", [Request("bad name"), Request("t", job_id="a b"), Request("t", queue=""), Request("t", priority="urgent"), Request("t", (object(),))],
    ids=["task", "id", "queue", "priority", "argument"],
)  # fmt: skip
def test_a_job_outside_the_rules_is_refused_before_it_is_sent(client: Client, request_: Request) -> None:
    if request_.queue == "":
        request_ = Request("t", queue="a b")
    with pytest.raises(errors.InvalidJob):
        client.send(request_)

    assert Raw(client).picture(without=()) == {}


def test_a_task_where_a_request_belongs_is_refused_with_the_call_to_use(client: Client) -> None:
    nearly: Any = "t"

    with pytest.raises(errors.InvalidJob, match="use enqueue"):
        client.send(nearly)
    with pytest.raises(errors.InvalidJob, match="use enqueue"):
        client.enqueue_many([nearly])


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("url", "namespace", "words"),
    [
        ("redis://localhost/0?nosuch=1", None, r"redis\.url: after the `\?`"), ("localhost:6379", None, "unknown scheme"),
        ("redis://localhost:port/0", None, "cannot be read"), (None, "a b", "namespace: found 'a b'"), (None, "", "namespace: found ''"),
        ("http://x", "a}b", "2 fault"),
    ],
)  # fmt: skip
def test_an_address_or_a_namespace_that_no_pool_can_have_is_refused_before_anything_is_sent(
    kind: type[Client | AsyncClient], url: str | None, namespace: str | None, words: str
) -> None:
    with pytest.raises(errors.ConfigError, match=words):
        kind(url, namespace=namespace)


def test_a_closed_client_may_be_used_again(client: Client) -> None:
    client.enqueue("t")
    client.close()

    assert client.enqueue("t").refresh().state == "ready"


def test_a_payload_above_the_limit_is_refused(client: Client) -> None:
    with with_limits(client, payload_bytes=200) as small:
        small.enqueue("t", "x" * 50)
        with pytest.raises(errors.PayloadTooLarge, match=r"limits\.payload_bytes"):
            small.enqueue("t", "x" * 200)


def test_the_default_limit_is_one_mebibyte(client: Client) -> None:
    client.enqueue("t", "x" * (2**20 - 200))
    with pytest.raises(errors.PayloadTooLarge):
        client.enqueue("t", "x" * 2**20)


def test_a_full_queue_refuses_and_another_takes(client: Client) -> None:
    with with_limits(client, queue_length=2) as small:
        small.enqueue_many([Request("t"), Request("t")])
        with pytest.raises(errors.QueueFull, match="'default' holds 2 jobs"):
            small.enqueue("t")
        with pytest.raises(errors.QueueFull):
            small.enqueue_many([Request("t")])
        small.send(Request("t", queue="other"))


def test_enqueue_in_counts_from_the_servers_clock(client: Client) -> None:
    job = client.enqueue_in(60, "t")

    assert job.refresh().state is JobState.SCHEDULED
    assert 55_000 < Raw(client).scheduled()[job.id] - Raw(client).now_ms() <= 60_000


def test_enqueue_at_takes_a_time_of_any_zone(client: Client) -> None:
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)

    job = client.enqueue_at(due.astimezone(), "t")

    assert Raw(client).scheduled()[job.id] == int(due.timestamp() * 1000)


def test_a_time_without_a_zone_is_refused(client: Client) -> None:
    with pytest.raises(errors.InvalidJob, match="no time zone"):
        client.enqueue_at(datetime(2030, 1, 1), "t")  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize("delay_s", [-1, float("inf"), float("nan"), 1e12])
def test_a_delay_out_of_range_is_refused(client: Client, delay_s: float) -> None:
    with pytest.raises(errors.InvalidJob, match="delay"):
        client.enqueue_in(delay_s, "t")


def test_many_jobs_are_streamed_in_chunks_and_keep_their_order(client: Client) -> None:
    sent: list[int] = []

    def requests() -> Iterator[Request]:
        for number in range(10_000):
            if number == 9_000:
                # The earlier ones are in Redis before the last are even made.
                sent.append(len(Raw(client).ready("default:normal")))
            yield Request("t", job_id=f"j{number}")

    jobs = client.enqueue_many(requests())

    assert sent[0] >= 8_000
    assert [job.id for job in jobs] == Raw(client).ready("default:normal") == [f"j{number}" for number in range(10_000)]


def test_nothing_to_send_sends_nothing(client: Client) -> None:
    assert client.enqueue_many([]) == []


def test_a_refusal_by_redis_is_an_enqueue_error_alone_and_in_a_chunk(raw: Raw) -> None:
    raw.spoil(raw.keys.ready("default:normal"))

    with pytest.raises(errors.EnqueueError, match="WRONGTYPE"):
        raw.client.enqueue("t")
    with pytest.raises(errors.EnqueueError, match="WRONGTYPE"):
        raw.client.enqueue_many([Request("t")])


def test_a_hundred_threads_share_one_client(client: Client) -> None:
    with ThreadPoolExecutor(100) as pool:
        ids = list(pool.map(lambda number: client.enqueue("t", number).id, range(1_000)))

    assert len(set(ids)) == 1_000
    assert sorted(Raw(client).ready("default:normal")) == sorted(ids)
    arguments = {decode(client.record(job_id).envelope).args[0] for job_id in ids}
    assert arguments == set(range(1_000))


# Asking.


def test_an_unknown_job_is_not_found(client: Client) -> None:
    for ask in (client.get, client.record, client.result, client.cancel):
        with pytest.raises(errors.JobNotFound, match="no job nope"):
            ask("nope")


def test_a_job_is_found_again_by_its_id(client: Client) -> None:
    job_id = client.enqueue("t").id

    assert client.get(job_id).state is JobState.READY


def test_a_result_is_what_the_handler_returned(raw: Raw) -> None:
    job = raw.client.enqueue("t")
    raw.settle(raw.claim(queues=["default"]).jobs[0], "succeed", b'{"n": [1]}')

    assert job.result(timeout=1) == {"n": [1]}


def test_a_result_is_waited_for(raw: Raw) -> None:
    job = raw.client.enqueue("t")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.result, 10)
        raw.settle(raw.claim(queues=["default"]).jobs[0], "succeed", b"7")

        assert waiting.result(10) == 7


def test_a_result_that_does_not_come_times_out(client: Client) -> None:
    with pytest.raises(errors.ResultTimeout, match=r"still ready after 0.01 s"):
        client.enqueue("t").result(timeout=0.01)


@pytest.mark.parametrize(
    ("error", "words"),
    [(b'{"type": "E", "message": "bad"}', "bad"), (b'{"type": "E"}', "E"), (b"{}", "no reason recorded")],
)
def test_a_dead_jobs_result_is_an_error_with_the_reason(raw: Raw, error: bytes, words: str) -> None:
    job = raw.client.enqueue("t")
    raw.settle(raw.claim(queues=["default"]).jobs[0], "bury", error, 0)

    with pytest.raises(errors.JobFailed, match=f"is dead: {words}"):
        job.result(timeout=1)


def test_a_quarantined_jobs_result_tells_the_crash_limit(raw: Raw) -> None:
    job = raw.client.enqueue("t")
    raw.claim(queues=["default"])
    raw.recover(charged=job.id, crash_limit=1)

    with pytest.raises(errors.JobFailed, match="crash limit"):
        job.result()


def test_a_waiting_job_is_cancelled_and_has_no_result(client: Client) -> None:
    job = client.enqueue_in(60, "t")

    job.cancel()

    assert job.refresh().state is JobState.CANCELLED
    with pytest.raises(errors.JobFailed, match="cancelled"):
        job.result()


def test_a_running_job_is_not_cancelled(raw: Raw) -> None:
    job = raw.client.enqueue("t")
    raw.claim(queues=["default"])

    with pytest.raises(errors.JobNotCancellable, match="is active"):
        job.cancel()


# Reaching Redis.


def test_connect_checks_the_server_and_returns_the_client(redis_server: LocalServer) -> None:
    with Client(redis_server.url).connect() as client:
        assert client.store.client.ping()


def test_a_client_comes_from_a_configuration_file(redis_server: LocalServer, tmp_path: Path) -> None:
    path = tmp_path / "rqsup.yaml"
    path.write_text(f"namespace: from-file\nredis: {{url: '{redis_server.url}'}}\n")

    with Client.from_config(str(path)) as client:
        assert client.keys.namespace == "from-file"
        assert client.store.client.ping()


def test_a_failing_connect_is_logged_as_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqsup.store.connection.await_server.__defaults__", (lambda _: None,))
    settings = Settings(redis=RedisSettings(url="unix:///nowhere/redis.sock", connect_tries=2))

    with caplog.at_level(logging.WARNING, "rqsup.client"), pytest.raises(errors.RedisUnavailable):
        Client(settings=settings).connect()

    assert "try 1 of 2" in caplog.text


def test_a_server_that_goes_away_is_an_error_that_says_so(private_redis: LocalServer) -> None:
    client = Client(private_redis.url)
    client.enqueue("t")
    private_redis.kill()

    with pytest.raises(errors.RedisUnavailable, match="its fate is unknown"):
        client.enqueue("t")
    with pytest.raises(errors.RedisUnavailable):
        client.enqueue_many([Request("t")])
    private_redis.start()
    assert client.enqueue("t").refresh().state is JobState.READY


def test_a_server_that_lost_its_scripts_gets_them_again(private_redis: LocalServer) -> None:
    client = Client(private_redis.url)
    client.enqueue_many([Request("t")])
    client.store.client.script_flush()
    client.enqueue_many([Request("t")])
    client.store.client.script_flush()
    client.enqueue("t")

    assert len(Raw(client).ready("default:normal")) == 3


# A reply that is lost on the way.


class DeafProxy:
    """Stands between a client and Redis, and swallows the reply to one EVALSHA when told to."""

    def __init__(self, target: str, path: Path) -> None:
        self.url = f"unix://{path}"
        self.swallow = threading.Event()
        self.swallowed = threading.Event()
        self._target = target.removeprefix("unix://")
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._door.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(self._target)
            while command := near.recv(1 << 16):
                far.sendall(command)
                reply = far.recv(1 << 16)
                if self.swallow.is_set() and b"EVALSHA" in command:
                    self.swallow.clear()
                    self.swallowed.set()
                    return
                near.sendall(reply)


@pytest.fixture
def proxy(redis_server: LocalServer, tmp_path: Path) -> Iterator[DeafProxy]:
    proxy = DeafProxy(redis_server.url, tmp_path / "p.sock")
    yield proxy
    proxy.close()


def test_a_lost_reply_leaves_one_copy_and_no_silent_repeat(client: Client, proxy: DeafProxy) -> None:
    with Client(proxy.url, namespace=client.keys.namespace) as unlucky:
        unlucky.enqueue("warm-up")
        proxy.swallow.set()

        with pytest.raises(errors.RedisUnavailable, match="its fate is unknown"):
            unlucky.send(Request("t", job_id="mine"))

        assert proxy.swallowed.is_set()
        assert Raw(client).stat("accepted") == 2
        # The sender repeats it with the same id: still one copy.
        unlucky.send(Request("t", job_id="mine"))
    assert Raw(client).ready("default:normal").count("mine") == 1


def test_the_clients_own_retries_are_off(client: Client) -> None:
    retry = client.store.client.connection_pool.make_connection().retry

    assert retry._retries == 0


def test_jobs_are_accepted_by_a_server_that_lost_its_scripts(client: Client) -> None:
    client.enqueue_many([Request("t")])
    client.store.client.script_flush()

    jobs = client.enqueue_many(Request("t", (number,)) for number in range(3))

    assert [job.refresh().state for job in jobs] == ["ready"] * 3


def test_a_refused_read_is_no_enqueue_error(client: Client) -> None:
    client.store.client.set(client.keys.job("odd"), "no hash")

    with pytest.raises(errors.RedisUnavailable, match="WRONGTYPE"):
        client.record("odd")
