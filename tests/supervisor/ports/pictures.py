"""Snapshots for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from rqsup.supervisor.snapshot import VERSION, RecoveryView, Snapshot, WorkerView

COUNTERS = {
    "succeeded": 1000,
    "retried": 7,
    "buried": 2,
    "crashed": 3,
    "returned": 1,
    "recovered": 4,
    "stale": 1,
    "deaths": 3,
    "restarts": 5,
    "strangers": 6,
    "beats_failed": 8,
    "promoted": 9,
    "reaped": 10,
}


def worker(number: int, **changes: Any) -> WorkerView:
    """One worker; idle unless told otherwise."""
    idle = WorkerView(
        number=number,
        id=f"host:nonce:{number}",
        pid=40_000 + number,
        generation=3,
        state="idle",
        task=None,
        job_id=None,
        job_age_s=None,
        age_s=7384.0,
        memory_bytes=24_000_000,
        succeeded=250,
        retried=1,
        buried=0,
    )
    return msgspec.structs.replace(idle, **changes)


def busy_worker(number: int, **changes: Any) -> WorkerView:
    """One worker inside a job."""
    job = {"state": "busy", "task": "mail.send", "job_id": "0199a1b2-c3d4-7e5f-8a6b-0123456789ab", "job_age_s": 12.3}
    return worker(number, **(job | changes))


def recovery(back_after_ms: float) -> RecoveryView:
    """One death whose job went back."""
    return RecoveryView(
        worker="host:nonce:2",
        number=2,
        pid=40_002,
        cause="killed by SIGKILL",
        jobs=["0199a1b2"],
        buried=[],
        back_after_ms=back_after_ms,
        at=1.0,
    )


def snapshot(**changes: Any) -> Snapshot:
    """A pool in good health: four workers, two of them busy."""
    healthy = Snapshot(
        version=VERSION,
        pool="mail",
        namespace="shop",
        pid=39_999,
        generation=3,
        state="running",
        target=4,
        ready=4,
        busy=2,
        uptime_s=7390.5,
        redis_url="redis://app:***@db.example.org:6379/0",
        redis_ok=True,
        redis_fault="",
        metrics_address="127.0.0.1:9090",
        last_reload="",
        degraded="",
        counters=dict(COUNTERS),
        workers=[busy_worker(1), worker(2), busy_worker(3), worker(4)],
        recoveries=[recovery(40.0), recovery(4.5)],
    )
    return msgspec.structs.replace(healthy, **changes)
