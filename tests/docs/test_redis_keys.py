"""docs/redis-keys.md: every key and every field of a record is listed."""

from __future__ import annotations

import re
from pathlib import Path

from rqsup import Client
from rqsup.store import scripts
from rqsup.store.keys import Keys
from tests.rqsup.store.raw import Raw

PAGE = (Path(__file__).parents[2] / "docs" / "redis-keys.md").read_text()


def test_the_keys_are_those_of_the_code() -> None:
    keys = Keys("n")
    made = {
        keys.job("<id>"), keys.ready("<queue>:<level>"), keys.scheduled, keys.processing("<worker>"), keys.inbox("<worker>"),
        keys.dead, keys.workers, keys.worker("<worker>"), keys.waiting, keys.idle("<queue>"), keys.queues, keys.stats, keys.due,
    }  # fmt: skip
    public = {name for name in dir(Keys) if not name.startswith("_")} - {"namespace", "root"}
    assert len(made) == len(public)

    first_table = PAGE.partition("## ")[0]

    assert {keys.root + name for name in re.findall(r"^\| `([^`]+)` \|", first_table, re.MULTILINE)} == made


def test_the_fields_of_a_record_are_those_that_scripts_write(client: Client) -> None:
    raw = Raw(client)
    raw.register("w")
    raw.enqueue("a")
    raw.claim()
    raw.recover()
    raw.register("w")
    raw.claim()
    raw.recover(charged="a")
    raw.register("w")
    raw.settle(raw.claim().jobs[0], "bury", b"{}", 0)
    raw.enqueue("b")
    raw.settle(raw.claim().jobs[0], "defer", b"{}", 1_000)
    seen = set(raw.job("a")) | set(raw.job("b"))
    raw.run(scripts.replay(raw.root, job_id="a"))
    raw.claim()
    raw.recover(charged="a", crash_limit=1)
    seen |= set(raw.job("a"))
    raw.run(scripts.replay(raw.root, job_id="a"))
    raw.register("w")
    raw.settle(raw.claim().jobs[0])
    seen |= set(raw.job("a"))

    table = PAGE.partition("## The record of a job")[2].partition("## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)

    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == seen
