"""recover.lua: a dead worker's jobs go back to their queues, each once."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from rqsup.store import scripts
from tests.rqsup.store.raw import Raw


def test_jobs_come_back_to_the_consuming_end_in_their_order_with_new_tokens(raw: Raw) -> None:
    for job_id in ("a", "b", "c", "later"):
        raw.enqueue(job_id)
    raw.claim(count=3)

    recovery = raw.recover()

    assert sorted(recovery.returned) == ["a", "b", "c"]
    assert (recovery.alive, recovery.buried, recovery.left) == (False, [], 0)
    assert raw.ready() == ["a", "b", "c", "later"]
    assert raw.processing() == []
    record = raw.job("a")
    assert (record["state"], record["token"], record["returns"]) == ("ready", "2", "1")
    assert record["returned"] == '{"message": "killed"}'
    assert raw.stat("recovered") == 3


def test_each_job_comes_back_to_its_own_lane(raw: Raw) -> None:
    raw.enqueue("a", queue="p", level="high")
    raw.enqueue("b", queue="q", level="low")
    raw.claim(count=2, queues=("p", "q"))

    raw.recover()

    assert (raw.ready("p:high"), raw.ready("q:low")) == (["a"], ["b"])


def test_each_suspect_is_charged_and_none_to_the_limit(raw: Raw) -> None:
    for job_id in ("a", "b", "c"):
        raw.enqueue(job_id)
    raw.redis.hset(raw.keys.job("b"), "crashes", 2)
    raw.claim(count=3)
    raw.claim(wait=True)
    raw.enqueue("handed")

    recovery = raw.recover(suspects=True, crash_limit=3)

    assert recovery.buried == []
    charged = {job_id: (raw.job(job_id).get("crashes", "0"), raw.job(job_id).get("returns", "0")) for job_id in ("a", "b", "c", "handed")}  # fmt: skip
    assert charged == {"a": ("1", "0"), "b": ("2", "1"), "c": ("1", "0"), "handed": ("0", "1")}
    assert raw.job("a")["crash"] == '{"message": "killed"}'
    assert raw.stat("crashed") == 2


def test_the_worker_leaves_the_registry_and_waits_no_longer(raw: Raw) -> None:
    raw.claim(wait=True)

    raw.recover()

    assert raw.redis.hexists(raw.keys.workers, "w") is False
    assert raw.redis.exists(raw.keys.worker("w")) == 0
    assert raw.redis.scard(raw.keys.waiting) == 0
    raw.enqueue("a")
    assert raw.ready() == ["a"]


def test_jobs_that_were_handed_over_but_not_begun_come_back_too(raw: Raw) -> None:
    raw.claim(wait=True)
    raw.enqueue("a")
    raw.enqueue("b")

    assert raw.recover().returned == ["a"]
    assert raw.ready() == ["a", "b"]
    assert raw.inbox() == []


def test_a_job_moved_out_of_the_inbox_but_not_begun_comes_back_too(raw: Raw) -> None:
    raw.claim(wait=True)
    raw.enqueue("a")
    raw.redis.lmove(raw.keys.inbox("w"), raw.keys.processing("w"), "RIGHT", "LEFT")

    assert raw.recover().returned == ["a"]
    assert raw.ready() == ["a"]


def test_a_returned_job_goes_straight_to_a_waiting_worker(raw: Raw) -> None:
    raw.register("other")
    raw.enqueue("a")
    raw.claim()
    raw.claim("other", wait=True)

    raw.recover()

    assert raw.inbox("other") == ["a"]
    assert [job.token for job in raw.claim("other", resume=True).jobs] == [3]


def test_a_second_recovery_changes_nothing(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    raw.recover()
    before = raw.picture(without=())

    assert raw.recover().returned == []
    assert raw.picture(without=()) == before


def test_a_worker_that_beat_again_is_alive_and_keeps_everything(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    judged = raw.redis.hget(raw.keys.workers, "w").decode()
    raw.register("w")
    before = raw.picture(without=())

    assert raw.recover(beat=judged).alive is True
    assert raw.picture(without=()) == before


def test_a_worker_whose_beat_stands_still_is_recovered(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    judged = raw.redis.hget(raw.keys.workers, "w").decode()

    assert raw.recover(beat=judged).returned == ["a"]


def test_batches_bring_back_all_jobs_in_their_order(raw: Raw) -> None:
    ids = [f"j{number}" for number in range(7)]
    for job_id in ids:
        raw.enqueue(job_id)
    raw.claim(count=7)

    lefts: list[int] = []
    while not lefts or lefts[-1]:
        assert raw.redis.hexists(raw.keys.workers, "w")
        lefts.append(raw.recover(limit=3).left)

    assert lefts == [4, 1, 0]
    assert raw.ready() == ids
    assert raw.redis.hexists(raw.keys.workers, "w") is False


def test_only_the_charged_job_pays_for_the_crash(raw: Raw) -> None:
    raw.enqueue("guilty")
    raw.enqueue("innocent")
    raw.claim(count=2)

    raw.recover(charged="guilty")

    assert raw.job("guilty")["crashes"] == "1"
    assert raw.job("guilty")["crash"] == '{"message": "killed"}'
    assert "crashes" not in raw.job("innocent")
    assert raw.stat("crashed") == 1
    raw.register("w")
    assert [job.attempt for job in raw.claim(count=2).jobs] == [2, 1]


def test_a_job_whose_worker_died_too_often_is_quarantined(raw: Raw) -> None:
    raw.enqueue("a")
    for _ in range(2):
        raw.claim()
        assert raw.recover(charged="a", crash_limit=3).buried == []
        raw.register("w")
    raw.claim()

    recovery = raw.recover(charged="a", crash_limit=3)

    assert (recovery.returned, recovery.buried, recovery.left) == ([], ["a"], 0)
    record = raw.job("a")
    assert record["state"] == "dead"
    assert "3 times" in record["reason"]
    assert raw.dead() == ["a"]
    assert raw.ready() == []


def test_deploys_and_lost_hosts_cost_a_job_nothing(raw: Raw) -> None:
    raw.enqueue("a")
    for _ in range(10):
        raw.claim()
        raw.recover(crash_limit=1)
        raw.register("w")

    assert raw.job("a")["returns"] == "10"
    assert raw.claim().jobs[0].attempt == 1


def test_stray_copies_are_dropped(raw: Raw) -> None:
    raw.enqueue("done")
    raw.settle(raw.claim().jobs[0])
    raw.redis.lpush(raw.keys.processing("w"), "done")

    recovery = raw.recover()

    assert (recovery.returned, recovery.left) == ([], 0)
    assert raw.job("done")["state"] == "succeeded"
    assert raw.processing() == []
    assert raw.stat("strays") == 1


def test_two_copies_of_one_id_come_back_once(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    raw.redis.lpush(raw.keys.processing("w"), "a")

    raw.recover()

    raw.register("w")
    assert [job.id for job in raw.claim(count=5).jobs] == ["a"]
    assert raw.processing() == ["a"]


@pytest.mark.parametrize("kind", ["missing", "wrong type"])
def test_an_id_without_a_readable_record_is_buried(raw: Raw, kind: str) -> None:
    raw.redis.lpush(raw.keys.processing("w"), b"\xff junk")
    if kind == "wrong type":
        raw.redis.set(raw.keys.root.encode() + b"job:\xff junk", "not yours")

    assert raw.recover().left == 0

    assert raw.redis.zrange(raw.keys.dead, 0, -1) == [b"\xff junk"]
    assert raw.stat("dead") == 1


@pytest.mark.parametrize("field", ["queue", "level"])
def test_a_record_that_lost_its_lane_is_buried_and_the_others_come_back(raw: Raw, field: str) -> None:
    for name in ("odd", "good"):
        raw.enqueue(name)
    raw.register("w")
    raw.claim(count=2)
    raw.redis.hdel(raw.keys.job("odd"), field)

    assert raw.recover().left == 0

    assert (raw.dead(), raw.ready(), raw.processing()) == (["odd"], ["good"], [])


@pytest.mark.parametrize("count", [1, 7])
def test_jobs_whose_lane_has_a_wrong_type_are_kept_for_later_and_the_recovery_ends(raw: Raw, count: int) -> None:
    for number in range(count):
        raw.enqueue(f"j{number}")
    raw.claim(count=count)
    raw.spoil(raw.keys.ready("q:normal"))

    rounds = 0
    while raw.recover(limit=3).left:
        rounds += 1
        assert rounds < 10

    assert sorted(raw.scheduled()) == sorted(f"j{number}" for number in range(count))
    assert raw.job("j0")["state"] == "scheduled"
    assert raw.scheduled()["j0"] > raw.now_ms()


@pytest.mark.parametrize("key", ["stats", "waiting", "idle"])
def test_a_wrong_type_where_no_job_is_kept_does_not_hinder_a_recovery(raw: Raw, key: str) -> None:
    raw.enqueue("a")
    raw.claim()
    raw.spoil({"stats": raw.keys.stats, "waiting": raw.keys.waiting, "idle": raw.keys.idle("q")}[key])

    assert raw.recover(charged="a").returned == ["a"]
    assert raw.ready() == ["a"]


def test_an_own_list_of_a_wrong_type_fails_loudly_and_moves_nothing(raw: Raw) -> None:
    raw.enqueue("a")
    raw.claim()
    raw.spoil(raw.keys.inbox("w"))
    before = raw.picture()

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        raw.recover()

    assert raw.picture() == before


def test_a_registry_of_a_wrong_type_fails_loudly_when_a_beat_is_judged(raw: Raw) -> None:
    raw.spoil(raw.keys.workers)

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        raw.recover(beat="1")


def test_the_answer_of_a_live_worker_is_read() -> None:
    call = scripts.recover("r:", worker="w", cause=b"{}", beat="1")

    assert call.decode([b"alive"]).alive is True


def test_a_condemned_job_is_buried_without_a_crash_and_the_others_go_back(raw: Raw) -> None:
    raw.enqueue("doomed")
    raw.enqueue("held")
    raw.claim(count=2)

    recovery = raw.recover(condemned="doomed")

    assert (recovery.buried, recovery.returned) == (["doomed"], ["held"])
    record = raw.job("doomed")
    assert (record["state"], record["reason"], record["crash"]) == ("dead", "killed", '{"message": "killed"}')
    assert "crashes" not in record
    assert int(record["token"]) == 2
    assert raw.redis.zscore(raw.keys.dead, "doomed") is not None
    assert (raw.stat("dead"), raw.stat("crashed"), raw.stat("recovered")) == (1, 0, 1)
    assert raw.ready() == ["held"]


def test_a_condemned_job_that_the_worker_no_longer_has_stays_where_it_is(raw: Raw) -> None:
    raw.enqueue("doomed")
    raw.enqueue("other")
    raw.claim()

    recovery = raw.recover(condemned="other")

    assert (recovery.buried, recovery.returned) == ([], ["doomed"])
    assert raw.job("other")["state"] == "ready"


def test_the_evidence_stays_with_the_charged_job_alone_and_a_crash_is_no_hand_back(raw: Raw) -> None:
    raw.enqueue("a")
    raw.enqueue("b")
    raw.claim(count=2)

    raw.recover(charged="a", evidence=b'{"message": "killed", "stack": "in send"}')

    charged, other = raw.job("a"), raw.job("b")
    assert charged["crash"] == '{"message": "killed", "stack": "in send"}'
    assert charged["returned"] == other["returned"] == '{"message": "killed"}'
    assert (charged["crashes"], charged.get("returns"), other.get("crashes"), other["returns"]) == (
        "1",
        None,
        None,
        "1",
    )
