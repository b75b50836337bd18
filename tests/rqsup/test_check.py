"""The state checker: each planted fault is named, and a busy server raises no false alarm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from rqsup import Client
from rqsup.inspect import Fault, check
from rqsup.store import scripts
from rqsup.store.connection import Store
from tests.rqsup.store.raw import Raw


@pytest.fixture
def raw(client: Client) -> Raw:
    raw = Raw(client)
    raw.register("w", "other")
    return raw


def look(raw: Raw) -> list[Fault]:
    report = check(raw.client.store, raw.keys)
    assert report.gaps == []
    assert report.clean == (not report.faults)
    return report.faults


def one_of_each(raw: Raw) -> None:
    """A job in each state, and one handed over but not begun."""
    for outcome in ("succeed", "retry", "bury"):
        raw.enqueue(outcome)
        raw.settle(raw.claim().jobs[0], outcome, b"{}", 60_000)
    raw.enqueue("active")
    raw.claim()
    raw.enqueue("cancelled")
    raw.run(scripts.cancel(raw.root, job_id="cancelled", ttl_ms=60_000))
    raw.claim("other", wait=True)
    raw.enqueue("inbox")
    raw.claim("other", resume=True)
    raw.claim("other", count=1, wait=True)
    raw.enqueue("handed")
    raw.redis.lmove(raw.keys.inbox("other"), raw.keys.processing("other"), "RIGHT", "LEFT")
    raw.enqueue("ready")


def test_a_namespace_in_order_is_clean_and_counted(raw: Raw) -> None:
    one_of_each(raw)

    report = check(raw.client.store, raw.keys)

    assert report.faults == []
    assert report.clean
    assert report.counts == {"ready": 1, "inbox": 0, "processing": 3, "scheduled": 1, "dead": 1, "finished": 2}


def test_an_empty_namespace_is_clean(client: Client) -> None:
    assert check(client.store, client.keys).clean


PLANTED: dict[str, tuple[Callable[[Raw], object], str, str]] = {
    "no place": (lambda raw: raw.redis.delete(raw.keys.ready("q:normal")), "ready", "in no place"),
    "no place for an active job": (lambda raw: raw.redis.delete(raw.keys.processing("w")), "active", "in no place"),
    "no place for a scheduled job": (lambda raw: raw.redis.delete(raw.keys.scheduled), "retry", "in no place"),
    "no place for a dead job": (lambda raw: raw.redis.delete(raw.keys.dead), "bury", "in no place"),
    "twice in one list": (lambda raw: raw.redis.lpush(raw.keys.ready("q:normal"), "ready"), "ready", "2 places"),
    "in two lists": (lambda raw: raw.redis.lpush(raw.keys.ready("q:low"), "ready"), "ready", "2 places"),
    "ready and running": (lambda raw: raw.redis.lpush(raw.keys.ready("q:normal"), "active"), "active", "2 places"),
    "dead and scheduled": (lambda raw: raw.redis.zadd(raw.keys.scheduled, {"bury": 1}), "bury", "2 places"),
    "wrong lane": (
        lambda raw: raw.redis.rename(raw.keys.ready("q:normal"), raw.keys.ready("q:low")), "ready", "in lane q:normal but lies in ready:q:low",
    ),
    "wrong worker": (lambda raw: raw.redis.hset(raw.keys.job("active"), "worker", "other"), "active", "on worker other but lies in processing:w"),
    "wrong state": (lambda raw: raw.redis.hset(raw.keys.job("ready"), "state", "dead"), "ready", "is dead but lies in ready:q:normal"),
    "unknown state": (lambda raw: raw.redis.hset(raw.keys.job("ready"), "state", "odd"), "ready", "without a readable record"),
    "ended but listed": (lambda raw: raw.redis.lpush(raw.keys.ready("q:normal"), "succeed"), "succeed", "still lies in"),
    "ended but kept": (lambda raw: raw.redis.persist(raw.keys.job("succeed")), "succeed", "never expires"),
    "open but expiring": (lambda raw: raw.redis.expire(raw.keys.job("ready"), 60), "ready", "expires in"),
    "no record": (lambda raw: raw.redis.lpush(raw.keys.ready("q:normal"), "ghost"), "ghost", "without a readable record"),
    "foreign bytes": (lambda raw: raw.redis.lpush(raw.keys.ready("q:normal"), b"\xff"), "\udcff", "without a readable record"),
    "record of a wrong type": (lambda raw: raw.spoil(raw.keys.job("odd")), "odd", "rqsup did not write"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_fault_is_named_and_nothing_else(raw: Raw, plant: str) -> None:
    one_of_each(raw)
    act, job_id, words = PLANTED[plant]

    act(raw)

    [fault] = look(raw)
    assert fault.id == job_id
    assert words in fault.message


@pytest.mark.parametrize("kind", ["processing", "inbox"])
def test_a_list_of_a_worker_outside_the_registry_is_named(raw: Raw, kind: str) -> None:
    one_of_each(raw)
    raw.redis.lpush(f"{raw.root}{kind}:gone", "ready")
    raw.redis.delete(raw.keys.ready("q:normal"))

    [fault] = look(raw)

    assert fault.id == f"{kind}:gone"
    assert "nobody would recover" in fault.message


def test_a_lane_of_a_queue_that_is_not_listed_is_read_too(raw: Raw) -> None:
    raw.enqueue("a")
    raw.redis.delete(raw.keys.queues)

    assert check(raw.client.store, raw.keys).counts["ready"] == 1


@pytest.mark.parametrize("name", ["ready:q:high", "scheduled", "dead", "workers", "queues", "processing:w"])
def test_a_key_of_a_wrong_type_is_named(raw: Raw, name: str) -> None:
    raw.enqueue("a")
    raw.spoil(raw.root + name)

    [fault] = look(raw)

    assert fault.id == name
    assert "WRONGTYPE" in fault.message


def test_an_unreadable_letter_is_no_fault(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), "ghost", "odd")
    raw.spoil(raw.keys.job("odd"))
    raw.claim()

    assert look(raw) == []


def test_a_duplicate_on_another_page_of_a_long_list_is_found(raw: Raw) -> None:
    raw.client.enqueue_many([])
    for number in range(2_500):
        raw.redis.hset(
            raw.keys.job(f"j{number}"), mapping={"state": "ready", "queue": "q", "level": "normal", "envelope": "{}"}
        )
        raw.redis.lpush(raw.keys.ready("q:normal"), f"j{number}")
    raw.redis.lpush(raw.keys.ready("q:normal"), "j0")

    assert [fault.id for fault in look(raw)] == ["j0"]


def test_the_check_ends_after_many_faults_and_says_so(raw: Raw) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), *(f"ghost{number}" for number in range(1_500)))

    report = check(raw.client.store, raw.keys)

    assert 1_000 <= len(report.faults) < 1_200
    assert "more than 1000 faults" in report.gaps[0]


def test_without_the_right_to_scan_the_check_says_what_it_could_not_see(raw: Raw) -> None:
    one_of_each(raw)
    raw.redis.lpush(raw.keys.ready("q:normal"), "ghost")
    raw.redis.acl_setuser(
        "noscan", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-scan"]
    )
    with Client(
        raw.client.settings.redis.url.replace("unix://", "unix://noscan@"), namespace=raw.keys.namespace
    ) as limited:
        report = check(Store(limited.store.client), raw.keys)
    raw.redis.acl_deluser("noscan")

    assert [fault.id for fault in report.faults] == ["ghost"]
    assert "may not SCAN" in report.gaps[0]


@pytest.fixture
def traffic(raw: Raw) -> Iterator[list[int]]:
    """Two threads that enqueue, claim, hand over, retry, recover and settle all the time."""
    stop = threading.Event()
    done: list[int] = []
    faults: list[BaseException] = []

    def work(worker: str) -> None:
        number = 0
        own = Raw(Client(raw.client.settings.redis.url, namespace=raw.keys.namespace))
        try:
            while not stop.is_set():
                number += 1
                own.enqueue(f"{worker}-{number}", delay_ms=1 if number % 5 == 0 else 0)
                own.run(scripts.promote(own.root))
                jobs = own.claim(worker, count=2, resume=True, wait=True).jobs
                for job in jobs:
                    own.settle(
                        job, ("succeed", "retry", "succeed")[number % 3], b"{}", 60_000 if number % 3 else 1, worker
                    )
                if number % 7 == 0:
                    own.recover(worker)
                    own.register(worker)
                done.append(number)
        except BaseException as fault:
            faults.append(fault)
            raise

    threads = [threading.Thread(target=work, args=(worker,)) for worker in ("w", "other")]
    for thread in threads:
        thread.start()
    yield done
    stop.set()
    for thread in threads:
        thread.join(10)
    assert faults == []


def test_a_busy_server_raises_no_false_alarm(raw: Raw, traffic: list[int]) -> None:
    rounds = 0
    while len(traffic) < 1_500:
        rounds += 1
        assert look(raw) == []

    assert rounds >= 3
