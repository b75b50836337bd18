"""The harness for peers: what it says of them, what it installs, what it makes of results."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from benchmarks.peers import document, plots, results, rounds
from benchmarks.peers.environments import NoEnvironment, find_python, is_installed
from benchmarks.peers.peer import Peer
from benchmarks.peers.promises import outcomes
from benchmarks.peers.scenarios.scale import QUICK, Row
from benchmarks.peers.systems import PEERS
from benchmarks.peers.systems.rqsup import rqsup

#: Two peers in two scenarios: one better here, the other there.
ROWS: dict[str, list[Row]] = {
    "drain": [
        {"peer": "rqsup", "round": 1, "per_s": 100.0, "worker_us": 10.0, "quiet": True},
        {"peer": "rqsup", "round": 2, "per_s": 900.0, "worker_us": 10.0, "quiet": False},
        {"peer": "huey", "round": 1, "per_s": 50.0, "worker_us": 5.0, "quiet": True},
        {"peer": "rq", "round": 1, "error": "it fell over", "quiet": True},
    ],
    "pickup": [{"peer": "huey", "round": 1, "p50_ms": 1.0, "p99_ms": 2.0, "curve_ms": [0.5, 1.0, 2.0], "quiet": True}],
    "scaling": [
        {"peer": "rqsup", "round": 1, "workers": workers, "steady_per_s": 10.0 * workers, "quiet": True}
        for workers in (1, 8)
    ],
    "recovery": [
        {"peer": "rqsup", "round": 1, "jobs": 20, "held": 1, "again": 1, "ended": 20, "first_again_ms": 9.0, "watched_s": 120.0},
        {"peer": "huey", "round": 1, "jobs": 20, "held": 1, "again": 0, "ended": 19, "first_again_ms": None, "watched_s": 120.0},
    ],
}  # fmt: skip


@pytest.mark.parametrize("peer", PEERS.values(), ids=list(PEERS))
def test_each_peer_is_pinned_and_its_application_has_all_that_is_called(peer: Peer) -> None:
    tree = ast.parse(peer.application)
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}

    assert {"noop", "nap", "enqueue"} <= functions
    assert ("enqueue_batch" in functions) == (peer.pace.batch > 0)
    assert peer.requirements[0] == "-e" or all("==" in word for word in peer.requirements)
    assert peer.settings
    assert peer.recommended
    assert all(peer.workers(2, tuned) for tuned in (True, False))


def test_rqsup_is_measured_with_settings_that_were_given() -> None:
    command = rqsup("rqsup-one", {"prefetch": "1"}).workers(3, True)

    assert 'RQSUP_WORKERS__PREFETCH="1"' in command[0][-1]
    assert 'RQSUP_WORKERS__COUNT="3"' in command[0][-1]


def test_a_python_that_nobody_has_is_asked_for_in_vain() -> None:
    assert find_python((3, 11))
    with pytest.raises(NoEnvironment, match=r"3\.99"):
        find_python((3, 99))


def test_results_of_other_peers_stay_when_one_is_measured_again(tmp_path: Path) -> None:
    results.save(tmp_path, "drain", {"at": "then"}, ROWS["drain"])

    results.save(tmp_path, "drain", {"at": "now"}, [{"peer": "huey", "per_s": 70.0}])

    rows = results.load(tmp_path, "drain")
    assert results.medians(rows, "per_s") == {"rqsup": 100.0, "huey": 70.0}
    assert results.about(tmp_path) == {"at": "now"}
    assert json.loads((tmp_path / "drain.json").read_text())


def test_a_disturbed_round_does_not_count() -> None:
    assert results.median(ROWS["drain"], "rqsup", "per_s") == 100.0
    assert results.median(ROWS["drain"], "nobody", "per_s") is None


def test_the_document_shows_wins_losses_errors_and_who_lost_jobs() -> None:
    text = document.text(ROWS, [PEERS["huey"]], {"cores": 2}, {"drain"})

    assert "| drain, jobs/s | 100 | huey: 50.00 | 2.00 | win |" in text
    assert "| worker CPU, us/job | 10.00 | huey: 5.00 | 0.50 | **loss** |" in text
    assert "| huey | 50.00 (0.50) |" in text
    assert "- drain, rq: it fell over" in text
    assert "| huey | 1 | never | 19 of 20 | 1 of 1 |" in text
    assert "| peer | 1 | 8 |" in text
    assert "![Throughput](benchmarks/drain.svg)" in text
    assert "scaling.svg" not in text


def test_a_promise_is_a_quotient_inside_of_a_round_beside_the_closest_peer() -> None:
    rates = {"rqsup": (60.0, 90.0, 70.0), "dramatiq": (10.0, 30.0, 10.0), "cauli": (60.0, 60.0, 60.0)}
    rows: list[Row] = [
        {"peer": peer, "round": number, "per_s": rate, "quiet": True}
        for peer, found in rates.items()
        for number, rate in enumerate(found)
    ]
    rows.append({"peer": "dramatiq", "round": 2, "per_s": 99.0, "quiet": False})

    beside = {one.promise.words: one for one in outcomes({"drain": rows})}

    assert beside["drain, beside Dramatiq"].times == 6.0
    assert beside["drain, beside Dramatiq"].kept
    assert not beside["drain, beside cauli"].kept
    # This run has no figures of that setting: the default is judged.
    assert beside["drain with settle: each, beside Dramatiq"].times == 6.0
    assert "pick-up when idle, median" not in beside


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed: pip install 'rqsup[bench]'")
def test_plots_are_drawn_of_what_was_measured_and_alike_each_time(tmp_path: Path) -> None:
    assert sorted(plots.draw(tmp_path, ROWS)) == ["drain", "pickup", "recovery", "scaling"]

    first = (tmp_path / "drain.svg").read_bytes()
    plots.draw(tmp_path, ROWS)
    assert (tmp_path / "drain.svg").read_bytes() == first


def test_a_turn_that_was_disturbed_is_repeated_and_both_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter([[{"quiet": False}], [{"quiet": True}]])
    monkeypatch.setattr(rounds, "turn", lambda *_: next(turns))
    scale = type(QUICK)(repeats=2)

    rows = list(rounds.rounds([PEERS["huey"]], "drain", 1, scale, lambda _: None))

    assert [row["quiet"] for row in rows] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rqsup", "huey"])
def test_a_peer_that_is_installed_runs_every_job(name: str, redis_binary: str) -> None:
    if not is_installed(PEERS[name]):
        pytest.skip(f"not installed: make bench-peers BENCH_ARGS='--quick --peers {name}' does it")
    rows = rounds.turn(PEERS[name], "drain", QUICK)

    assert "error" not in rows[0], rows[0]
    assert rows[0]["per_s"] > 0
