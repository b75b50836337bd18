"""One instance of rqsup@.service inside a box, with its configuration, application and jobs."""

from __future__ import annotations

import itertools
import json
import subprocess
from typing import Any

from rqsup.store.server import find_binary
from tests.system.sdbox import CHECKOUT, PACKAGES, VENV, SystemdBox
from tests.waiting import wait_until

#: A pool of its own for each test.
names = (f"pool{number}" for number in itertools.count(1))
REDIS_URL = "unix:///run/test-redis/redis.sock"
REDIS_UNIT = """\
[Service]
ExecStart={binary} --port 0 --unixsocket /run/test-redis/redis.sock --unixsocketperm 777 --save "" --appendonly yes
RuntimeDirectory=test-redis
WorkingDirectory=/run/test-redis
"""
APP = """\
import os, time
from rqsup import current_job, task

@task(name="nap")
def nap(seconds):
    time.sleep(seconds)
    return {"pid": os.getpid(), "attempt": current_job().attempt}
"""
DROP_IN = """\
[Service]
WatchdogSec=2
RestartSec=100ms
"""
#: Sends `count` naps, calls a task with texts, or shows each job given: its state and, once it succeeded, its result.
DRIVE = """\
import json, sys
from rqsup import Client
url, namespace, command, *rest = sys.argv[1:]
client = Client(url, namespace=namespace)
if command == "send":
    count, seconds = int(rest[0]), float(rest[1])
    print(json.dumps([client.enqueue("nap", seconds).id for _ in range(count)]))
elif command == "call":
    print(json.dumps(client.enqueue(rest[0], *rest[1:]).result(timeout=30)))
else:
    jobs = [client.get(job_id) for job_id in rest]
    print(json.dumps([[job.state, job.result(timeout=1) if job.state == "succeeded" else None] for job in jobs]))
"""


def start_redis(box: SystemdBox) -> None:
    """Start a Redis server inside."""
    binary = find_binary()
    if "/site-packages/" in binary:  # the packaged one is seen where the packages are bound
        binary = f"{PACKAGES}/{binary.partition('/site-packages/')[2]}"
    box.write("/etc/systemd/system/test-redis.service", REDIS_UNIT.format(binary=binary))
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "test-redis")
    box.run("timeout", "10", "sh", "-c", "until test -S /run/test-redis/redis.sock; do sleep 0.01; done")


class Service:
    """`rqsup@NAME.service`, configured but not started."""

    def __init__(self, box: SystemdBox, name: str) -> None:
        self.box = box
        self.name = name
        self.unit = f"rqsup@{name}.service"
        self.folder = f"/opt/apps/{name}"
        self.write_app(APP)
        self.configure(
            f"pool: {name}\nnamespace: {name}\napp: [naps]\nredis: {{url: '{REDIS_URL}'}}\n"
            "workers: {count: 2, drain_timeout: 10}\nmetrics: {port: 0}\n"
        )
        box.write(f"/etc/rqsup/{name}.env", f"PYTHONPATH={self.folder}\nPYTHONDONTWRITEBYTECODE=1\n")
        box.write(f"/etc/systemd/system/{self.unit}.d/test.conf", DROP_IN)
        box.run("systemctl", "daemon-reload")

    def write_app(self, text: str) -> None:
        """Deploy new application code."""
        self.box.write(f"{self.folder}/naps.py", text)

    def configure(self, text: str) -> None:
        """Deploy a new configuration."""
        self.box.write(f"/etc/rqsup/{self.name}.yaml", text)

    def systemctl(self, verb: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `systemctl VERB` on the unit; a failure shows the journal."""
        done = self.box.run("systemctl", verb, *options, self.unit, check=False)
        if check and done.returncode:
            raise AssertionError(f"systemctl {verb} failed: {done.stderr}\n{self.journal()}")
        return done

    def shown(self, name: str) -> str:
        """One property of the unit."""
        return self.box.run("systemctl", "show", "--value", "-p", name, self.unit).stdout.strip()

    @property
    def main_pid(self) -> int:
        """The master's pid, inside; 0 = none."""
        return int(self.shown("MainPID"))

    def journal(self) -> str:
        """All that the unit logged."""
        return self.box.run("journalctl", "-u", self.unit, "-o", "cat", "--no-pager").stdout

    def status(self) -> dict[str, Any]:
        """`rqsup status --json`, asked by root from outside the service."""
        done = self.box.run("rqsup", "status", "--json", "-c", f"/etc/rqsup/{self.name}.yaml", check=False)
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return answer

    def worker_pids(self) -> set[int]:
        """Pids of the workers, inside."""
        return {worker["pid"] for worker in self.status()["workers"]}

    def await_workers(self, count: int = 2) -> None:
        """Wait until so many workers are ready."""
        wait_until(lambda: self.status().get("ready") == count, timeout_s=20, what=f"{count} ready workers")

    def send(self, count: int, seconds: float) -> list[str]:
        """Enqueue jobs; returns their ids."""
        ids: list[str] = json.loads(self._drive("send", str(count), str(seconds)))
        return ids

    def call(self, task: str, *arguments: str) -> Any:
        """The result of a job."""
        return json.loads(self._drive("call", task, *arguments))

    def drop_in(self, name: str, text: str | None = None) -> None:
        """Add a drop-in, a shipped one or one with this text; it counts from the next start."""
        text = (CHECKOUT / f"systemd/drop-ins/{name}.conf").read_text() if text is None else f"[Service]\n{text}\n"
        self.box.write(f"/etc/systemd/system/{self.unit}.d/{name}.conf", text)
        self.box.run("systemctl", "daemon-reload")

    def jobs(self, ids: list[str]) -> list[tuple[str, dict[str, Any] | None]]:
        """State and result of each job."""
        return [(state, result) for state, result in json.loads(self._drive("show", *ids))]

    def await_success(self, ids: list[str]) -> list[dict[str, Any]]:
        """Wait until all of the jobs have succeeded; returns their results."""
        wait_until(
            lambda: all(state == "succeeded" for state, _ in self.jobs(ids)), timeout_s=30, what="all jobs to succeed"
        )
        return [result for _, result in self.jobs(ids) if result is not None]

    def _drive(self, *arguments: str) -> str:
        return self.box.run(f"{VENV}/bin/python", "-c", DRIVE, REDIS_URL, self.name, *arguments).stdout
