"""The demo's honesty: it says so when a job is lost, and when no kill hit a worker in a job."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from rqsup import Client
from rqsup.errors import RqsupError
from rqsup.request import Request
from rqsup.supervisor.cli.demo import play, stage, view
from rqsup.supervisor.cli.demo.play import Outcome, Play
from rqsup.supervisor.cli.demo.stage import Stage
from rqsup.supervisor.cli.demo.strike import strike
from rqsup.supervisor.cli.demo.tally import Ledger
from rqsup.supervisor.cli.demo.view import PlainView


def make(root: Path, count: int) -> Path:
    for number in range(count):
        (root / f"f{number}").write_bytes(b"x" * number)
    return root


def perform(directory: Path, ledger_type: type[Ledger] = Ledger, interrupted: threading.Event | None = None) -> Outcome:
    with (
        Stage(None, print) as set_up,
        Client(settings=set_up.settings) as client,
        ledger_type(set_up.folder / "ids") as ledger,
    ):
        if isinstance(ledger, ThievingLedger):
            ledger.client = client
        return Play(set_up, directory, PlainView(), client, ledger, interrupted=interrupted or threading.Event()).run()


def test_a_job_that_vanishes_is_counted_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than a busy machine may take between two of its jobs.
    monkeypatch.setattr(play, "STALL_S", 5.0)

    outcome = perform(make(tmp_path, 30), ThievingLedger)

    assert (outcome.tally.accepted, outcome.tally.succeeded, outcome.lost) == (30, 29, 1), outcome
    assert not outcome.well


def test_an_interrupt_whose_exception_was_dropped_is_heeded_all_the_same(tmp_path: Path) -> None:
    interrupted = threading.Event()
    interrupted.set()

    with pytest.raises(KeyboardInterrupt):
        perform(make(tmp_path, 30), interrupted=interrupted)


def test_without_a_hit_some_files_are_sent_again_and_then_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(play, "strike", lambda *_: None)
    monkeypatch.setattr(play, "ambush", lambda *_: None)
    monkeypatch.setattr(play, "ENCORES", 3)

    outcome = perform(make(tmp_path, 5))
    result = view.as_json(outcome)

    assert (result["files"], result["encore_jobs"], result["jobs"], result["lost"]) == (5, 14, 19, 0)
    assert (result["recovery_ms"], result["recovered_on"], result["killed_pid"]) == (None, None, None)
    assert result["bytes"] == 10  # of each file once
    told = capsys.readouterr().out
    assert "5 files are sent again (pass 2)" in told
    assert "a long file is sent 4 times (pass 3)" in told
    assert "No kill hit a worker in a job" in view.kill_line(outcome)


def test_a_hit_in_a_second_pass_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strikes, real = iter([True]), strike
    monkeypatch.setattr(play, "strike", lambda *given: None if next(strikes, False) else real(*given))

    outcome = perform(make(tmp_path, 5))

    assert outcome.encore_jobs >= 5
    assert outcome.hit is not None
    assert outcome.well


def test_a_long_file_is_hit_where_no_other_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "strike", lambda *_: None)

    outcome = perform(make(tmp_path, 5))

    assert outcome.hit is not None
    assert outcome.hit.back_after_ms > 0
    assert outcome.recovered_on not in {None, outcome.hit.worker.id}
    assert (outcome.files, outcome.tally.size_bytes) == (5, 10)
    assert outcome.well


def test_a_large_tree_is_struck_when_half_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "SMALL", 10)
    make(tmp_path, 400)

    outcome = perform(tmp_path)

    assert outcome.well
    assert outcome.tally.succeeded == 400 + outcome.encore_jobs


def test_a_master_that_does_not_start_is_an_error_with_its_log(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_tmp))
    monkeypatch.setattr(stage, "APP", "no_such_module")

    with (
        pytest.raises(RqsupError, match=r"(?s)the demo's master ended with status 78:.*no_such_module"),
        Stage(None, print),
    ):
        pass


class ThievingLedger(Ledger):
    """Steals the last job of a chunk from Redis, as a bug would."""

    client: Client

    def add(self, requests: Sequence[Request]) -> None:
        """Note the jobs; then one of them is gone."""
        super().add(requests)
        job_id, redis, keys = str(requests[-1].job_id), self.client.store.client, self.client.keys
        assert redis.lrem(keys.ready("files:normal"), 1, job_id) == 1
        redis.delete(keys.job(job_id))
