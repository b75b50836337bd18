from __future__ import annotations

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rqsup import __version__
from rqsup.supervisor.ports.metrics import LoopStats, render
from tests.supervisor.ports.pictures import snapshot, worker

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(page: bytes) -> Samples:
    families = text_string_to_metric_families(page.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(page: bytes, name: str, **labels: str) -> float:
    return samples(page)[name, tuple(sorted(labels.items()))]


def test_workers_are_counted_by_state_and_absent_states_are_zero() -> None:
    page = render(snapshot(workers=[worker(1), worker(2, state="busy"), worker(3, state="busy")]))

    assert value(page, "rqsup_workers", state="busy") == 2
    assert value(page, "rqsup_workers", state="idle") == 1
    assert value(page, "rqsup_workers", state="dying") == 0
    assert value(page, "rqsup_workers_target") == 4
    assert value(page, "rqsup_workers_memory_bytes") == 72_000_000


@pytest.mark.parametrize(
    ("outcome", "count"), [("succeeded", 1000), ("retried", 7), ("buried", 2), ("crashed", 3), ("returned", 1)]
)
def test_ended_attempts_are_counted_by_outcome(outcome: str, count: int) -> None:
    assert value(render(snapshot()), "rqsup_jobs_total", outcome=outcome) == count


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rqsup_recovered_jobs_total", 4),
        ("rqsup_worker_deaths_total", 3),
        ("rqsup_worker_restarts_total", 5),
        ("rqsup_stale_settles_total", 1),
        ("rqsup_strangers_reaped_total", 6),
        ("rqsup_beats_failed_total", 8),
        ("rqsup_promoted_jobs_total", 9),
        ("rqsup_reaped_workers_total", 10),
        ("rqsup_redis_up", 1),
        ("rqsup_degraded", 0),
        ("rqsup_generation", 3),
        ("rqsup_uptime_seconds", 7390.5),
        ("rqsup_recovery_seconds", 0.0045),
    ],
)
def test_each_figure_of_the_snapshot_is_on_the_page(name: str, expected: float) -> None:
    assert value(render(snapshot()), name) == pytest.approx(expected)


def test_trouble_is_visible() -> None:
    page = render(snapshot(redis_ok=False, degraded="workers die before they are ready"))

    assert value(page, "rqsup_redis_up") == 0
    assert value(page, "rqsup_degraded") == 1


def test_version_pool_and_namespace_are_labels_of_one_info() -> None:
    assert value(render(snapshot()), "rqsup_info", version=__version__, pool="mail", namespace="shop") == 1


def test_queue_depths_are_shown_only_when_known() -> None:
    unknown = render(snapshot(recoveries=[]))
    known = render(snapshot(), depths={("mail", "high"): 12, ("mail", "low"): 0}, scheduled=3, dead=1)

    assert b"rqsup_queue_ready_jobs" not in unknown
    assert b"rqsup_recovery_seconds" not in unknown
    assert value(known, "rqsup_queue_ready_jobs", queue="mail", level="high") == 12
    assert value(known, "rqsup_scheduled_jobs") == 3
    assert value(known, "rqsup_dead_jobs") == 1


def test_the_state_of_the_loop_is_shown() -> None:
    page = render(snapshot(), LoopStats(turns=500, lag_s=0.002, slow=3, longest_s=0.07))

    assert value(page, "rqsup_loop_turns_total") == 500
    assert value(page, "rqsup_loop_lag_seconds") == pytest.approx(0.002)
    assert value(page, "rqsup_loop_slow_turns_total") == 3
    assert value(page, "rqsup_loop_longest_turn_seconds") == pytest.approx(0.07)


def test_names_follow_the_rules_of_prometheus() -> None:
    page = render(snapshot(), LoopStats(1, 0.0), depths={("q", "high"): 1}, scheduled=0, dead=0)

    for family in text_string_to_metric_families(page.decode()):
        assert family.name.startswith("rqsup")
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith(("_ms", "_seconds_total", "_count")), family.name
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            assert set(sample.labels) <= {"state", "outcome", "queue", "level", "version", "pool", "namespace"}


def test_pages_leave_nothing_behind_in_the_process() -> None:
    before = set(prometheus_client.REGISTRY._names_to_collectors)

    assert render(snapshot()) == render(snapshot())

    assert set(prometheus_client.REGISTRY._names_to_collectors) == before
