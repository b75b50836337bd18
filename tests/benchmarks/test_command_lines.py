"""What the benchmarks say to a wrong command line: one line, status 2, and nothing is measured or installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import check, drain, stage
from benchmarks.peers import __main__ as peers


@pytest.fixture(autouse=True)
def without_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that runs the tests keeps its own SIGTERM."""
    for module in (bench, check, peers):
        monkeypatch.setattr(module, "end_in_order", lambda: None)


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (bench.main, ["--only", "nothing"], "unknown: nothing; there are drain"),
        (peers.main, ["--peers", "nosuch"], "unknown: nosuch; there are rqsup"),
        (peers.main, ["--rounds", "0"], "--rounds: must be a whole number, 1 or more, not '0'"),
        (drain.main, ["--workers", "0"], "--workers: must be a whole number, 1 or more, not '0'"),
        (drain.main, ["--set", "settle=sometimes"], "workers.settle: found 'sometimes'; allowed is one of each, batch"),
        (drain.main, ["--set", "setle=each"], "workers.setle: unknown key; did you mean settle?"),
    ],
)
def test_a_wrong_word_is_told_and_nothing_begins(
    main: object, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(main)
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_comparison_without_a_base_is_no_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check.main(["--base", str(tmp_path / "base.json")])

    assert ended.value.code == 2
    assert "make bench-check BENCH_ARGS=--write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["--help"], 0), (["x"], 2), (["0"], 2), (["7", "-1"], 2), (["7", "soon"], 2), (["7", "1", "2"], 2)],
)
def test_numbers_that_stand_by_themselves_are_checked(arguments: list[str], status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        stage.numbers(arguments, "x", jobs=(5, "Jobs."), lease=(0.5, "Seconds."))

    assert ended.value.code == status


def test_the_report_alone_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(peers, "install", lambda *_: pytest.fail("installs"))
    monkeypatch.setattr(peers, "_report", lambda *given: written.append(given))

    assert peers.main(["--quick", "--report"]) == 0
    assert len(written) == 1
