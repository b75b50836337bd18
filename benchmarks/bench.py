"""Redis' own time of each script, on a private server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import psutil

from benchmarks.meters import cpu_s
from rqsup import Client
from rqsup.envelope import Envelope, encode, new_id
from rqsup.store import scripts
from rqsup.store.keys import Keys, lanes
from rqsup.store.scripts import Call, Claimed, Settlement

T = TypeVar("T")

#: Jobs of one measured call, or measured calls of one job.
BATCH = 64
#: The kernel books a process's time when it stops, which is just after its answer.
BOOKED_S = 0.002
#: What a master says of each of its workers: about as much as in a real registry.
DETAILS = (
    b'{"host":"vm-1","home":"0f3c2c55-0f3c-2c55-0f3c-444455556666/4026531836","pool":"default","number":1,"generation":1,'
    b'"pid":12345,"started":123456,"master":12300,"master_started":123000,"state":"busy","task":"mail.send"}'
)


class Bench:
    """Scripts on a private server, and the microseconds that it spent in them."""

    def __init__(self, client: Client, pid: int, root: str = "") -> None:
        self._client = client
        self._redis: Any = client.store.client
        self._server = [psutil.Process(pid)]
        self.root = root or client.keys.root
        #: Microseconds per job, by what was measured.
        self.us: dict[str, list[float]] = {}

    def measure(self, name: str, calls: list[Call[Any]], jobs: int) -> list[Any]:
        """Send calls in one round trip, and note what each of so many jobs cost the server."""
        self._redis.config_resetstat()
        answers = self._client.store.run_many(calls)
        self.us.setdefault(name, []).append(self._redis.info("commandstats")["cmdstat_evalsha"]["usec"] / jobs)
        return answers

    def measure_command(self, name: str, calls: int, *command: str) -> None:
        """Send a command so many times, and note the server's processor time for each: reading, answering and sending."""
        before_s = cpu_s(self._server)
        for _ in range(calls):
            self._redis.execute_command(*command)
        time.sleep(BOOKED_S)
        self.us.setdefault(name, []).append(1e6 * (cpu_s(self._server) - before_s) / calls)

    def empty(self, workers: int = 1) -> None:
        """Start anew, with so many workers in the registry; the first is `w0`."""
        self._redis.flushdb()
        for first in range(0, workers, 1_000):
            self.run(self.beat(range(first, min(first + 1_000, workers))))

    def of(self, namespace: str) -> Bench:
        """The same server, another namespace."""
        return Bench(self._client, self._server[0].pid, Keys(namespace).root)

    def run(self, call: Call[T]) -> T:
        """Send a call that is not measured."""
        return self._client.store.run(call)

    def beat(self, workers: Iterable[int]) -> Call[list[str]]:
        """A master's beat for these workers."""
        return scripts.heartbeat(self.root, ttl_ms=600_000, details={f"w{number}": DETAILS for number in workers})

    def enqueue(self, count: int, level: str = "normal") -> list[Call[Any]]:
        """Calls for so many new jobs."""
        return [
            scripts.enqueue(self.root, job_id=job_id, queue="default", level=level, envelope=envelope(job_id))
            for job_id in (new_id() for _ in range(count))
        ]

    def fill(self, count: int, level: str = "normal") -> None:
        """Have so many jobs wait."""
        for start in range(0, count, 500):
            self.run(scripts.enqueue_many(self.root, self.enqueue(min(500, count - start), level)))

    def claim(self, count: int, queues: Sequence[str] = ("default",)) -> Call[Any]:
        """A claim by `w0`."""
        return scripts.claim(
            self.root, worker="w0", count=count, lanes=lanes(list(queues)), queues=queues, resume=False, wait=False
        )

    def settle(self, jobs: Sequence[Claimed], count: int = 0) -> Call[Any]:
        """The success of these jobs, and a claim of the next."""
        ends = [Settlement(job.id, job.token, "succeed", b"null", 86_400_000) for job in jobs]
        return scripts.settle(self.root, worker="w0", settlements=ends, count=count, lanes=lanes(["default"]))


def envelope(job_id: str) -> bytes:
    """The smallest usual job."""
    return encode(Envelope(id=job_id, task="noop"), 1_000_000)
