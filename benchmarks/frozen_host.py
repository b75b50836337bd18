"""How soon do a frozen host's jobs run elsewhere? `python -m benchmarks.frozen_host [lease_ttl]`

Two masters share one Redis. The whole process tree of one is stopped (SIGSTOP), as when its machine hangs,
while its workers are inside jobs; the other one runs them. Prints the time from the stop until each job has
begun again. The promise: within `lease_ttl` and one beat (a third of it). After SIGCONT the late results are
refused, and each job has one.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.stage import NAMESPACE, faults, numbers, report, spread, stage, wait_for
from rqsup import Client, Job
from tests.system.daemon import Daemon

#: Time for finding a job's new start, which is read from its record, and for a busy machine, seconds.
SLACK_S = 0.25


def main(lease_ttl: float = 3.0) -> int:
    """Run it and print one JSON line."""
    workers = {"count": 4, "lease_ttl": lease_ttl}
    with stage(workers=workers) as scene, tempfile.TemporaryDirectory(prefix="rqsup-bench-") as folder:
        other = Daemon(
            scene.server.url, NAMESPACE, folder=Path(folder), workers=workers, log={"level": "error"}
        ).start()
        # The other one takes no job before the stop, so all of them are in the frozen workers' hands.
        other.ask("quiet")
        wait_for(lambda: len(other.workers("quiet")) == 4, 10, "four quiet workers")
        jobs = [scene.client.enqueue("probe.nap", 1.0) for _ in range(4)]
        wait_for(lambda: len(scene.daemon.workers("busy")) == 4, 10, "four busy workers")
        tree = scene.daemon.tree()
        try:
            _send(tree, signal.SIGSTOP)
            stopped_ms = _server_ms(scene.client)
            other.ask("resume")
            back_s = [(_second_start_ms(job) - stopped_ms) / 1000 for job in jobs]
            results = [job.result(30) for job in jobs]
            _send(tree, signal.SIGCONT)
            wait_for(lambda: scene.daemon.status()["counters"]["stale"] == 4, 10, "four refused results")
            once, wrong = results == [job.result(1) for job in jobs], faults(scene.client)
        finally:
            _send(tree, signal.SIGCONT)
            other.stop()
    bound_s = lease_ttl * 4 / 3 + SLACK_S
    figures = {
        "lease_ttl_s": lease_ttl, "bound_s": round(bound_s, 3), "stopped_to_started_again_s": spread(back_s),
        "one_result_each": once, "faults": wrong,
    }  # fmt: skip
    return report("frozen_host", figures, kept=max(back_s) <= bound_s and once and not wrong)


def _second_start_ms(job: Job) -> int:
    """The server's time at which the job was begun by its second worker."""
    wait_for(lambda: _token(job) >= 3, 60, "the job's second start")  # claim, recover, claim
    return (job.record and job.record.started_at) or 0


def _token(job: Job) -> int:
    record = job.refresh().record
    return record.token if record else 0


def _server_ms(client: Client) -> int:
    seconds, micros = client.store.client.time()
    return int(seconds * 1000 + micros // 1000)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


if __name__ == "__main__":
    sys.exit(main(*numbers(sys.argv[1:], "frozen_host", lease_ttl=(3.0, "Seconds of a lease."))))
