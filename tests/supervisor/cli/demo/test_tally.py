"""The demo counts what became of its jobs from their records, and finds one that is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqsup import Client
from rqsup.envelope import new_id
from rqsup.request import Request
from rqsup.supervisor.cli.demo import tally as module
from rqsup.supervisor.cli.demo.tally import Ledger, tally


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ids") as opened:
        yield opened


def note(client: Client, ledger: Ledger, state: str, size: int, error: str | None = None) -> None:
    request = Request("files.digest", job_id=new_id())
    ledger.add([request])
    result = json.dumps({"path": f"/{size}", "bytes": size, "sha256": "", "error": error})
    if state:
        client.store.client.hset(client.keys.job(str(request.job_id)), mapping={"state": state, "result": result})


def test_jobs_are_counted_by_their_records(client: Client, ledger: Ledger) -> None:
    for state in ("succeeded", "succeeded", "dead", "ready", "active", ""):
        note(client, ledger, state, 10)

    counted = tally(client, ledger, files=6)

    assert (counted.accepted, counted.succeeded, counted.dead, counted.lost) == (6, 2, 1, 3)
    assert counted.size_bytes == 20


def test_the_five_largest_files_are_kept_over_all_pages(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 3)
    for size in (5, 80, 3, 70, 60, 1, 50, 90, 2, 40):
        note(client, ledger, "succeeded", size)

    counted = tally(client, ledger, files=10)

    assert sorted(counted.largest, reverse=True) == [(90, "/90"), (80, "/80"), (70, "/70"), (60, "/60"), (50, "/50")]


def test_a_file_sent_twice_counts_once_and_its_job_twice(client: Client, ledger: Ledger) -> None:
    note(client, ledger, "succeeded", 10)
    note(client, ledger, "succeeded", 10)

    counted = tally(client, ledger, files=1)

    assert (counted.accepted, counted.succeeded, counted.size_bytes, len(counted.largest)) == (2, 2, 10, 1)


def test_files_that_were_not_readable_are_told_apart(client: Client, ledger: Ledger) -> None:
    note(client, ledger, "succeeded", 0, error="vanished")

    assert tally(client, ledger, files=1).unreadable == 1
