"""A bare hand on Redis for script tests: runs one script, and shows the raw keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rqsup import Client
from rqsup.envelope import Envelope, encode
from rqsup.store import scripts
from rqsup.store.keys import Keys, lanes
from rqsup.store.scripts import Call, Claim, Claimed, Recovery, Settled, Settlement

T = TypeVar("T")


@dataclass(frozen=True)
class Raw:
    """One namespace, seen from below."""

    client: Client

    @property
    def redis(self) -> Any:  # redis-py's annotations mix the replies of both its clients
        return self.client.store.client

    @property
    def keys(self) -> Keys:
        return self.client.keys

    @property
    def root(self) -> str:
        return self.keys.root

    def run(self, call: Call[T]) -> T:
        return self.client.store.run(call)

    def commands(self) -> int:
        """Commands that the server has processed, those inside scripts included; asking is one, too."""
        return int(self.redis.info("stats")["total_commands_processed"])

    # What the product does, with short defaults.

    def enqueue(self, job_id: str, queue: str = "q", level: str = "normal", **options: int) -> str:
        return self.run(
            scripts.enqueue(self.root, job_id=job_id, queue=queue, level=level, envelope=envelope(job_id), **options)
        )

    def register(self, *workers: str) -> None:
        self.run(scripts.heartbeat(self.root, ttl_ms=60_000, details=dict.fromkeys(workers, b"{}")))

    def claim(
        self,
        worker: str = "w",
        count: int = 1,
        queues: Sequence[str] = ("q",),
        *,
        resume: bool = False,
        wait: bool = False,
    ) -> Claim:
        call = scripts.claim(
            self.root, worker=worker, count=count, lanes=lanes(list(queues)), queues=queues, resume=resume, wait=wait
        )
        return self.run(call)

    def settle(
        self, job: Claimed, outcome: str = "succeed", payload: bytes = b"1", number: int = 60_000, worker: str = "w"
    ) -> str:
        settlement = Settlement(job.id, job.token, outcome, payload, number)
        return self.run(scripts.settle(self.root, worker=worker, settlements=[settlement])).verdicts[0]

    def settle_all(
        self, settlements: list[Settlement], count: int = 0, queues: Sequence[str] = ("q",), worker: str = "w"
    ) -> Settled:
        return self.run(
            scripts.settle(self.root, worker=worker, settlements=settlements, count=count, lanes=lanes(list(queues)))
        )

    def recover(self, worker: str = "w", **options: Any) -> Recovery:
        return self.run(scripts.recover(self.root, worker=worker, cause=b'{"message": "killed"}', **options))

    # What Redis holds.

    def ready(self, lane: str = "q:normal") -> list[str]:
        """Ids of a lane in the order they will be taken."""
        return texts(self.redis.lrange(self.keys.ready(lane), 0, -1))[::-1]

    def processing(self, worker: str = "w") -> list[str]:
        """Ids in a worker's hands, oldest first."""
        return texts(self.redis.lrange(self.keys.processing(worker), 0, -1))[::-1]

    def inbox(self, worker: str = "w") -> list[str]:
        return texts(self.redis.lrange(self.keys.inbox(worker), 0, -1))[::-1]

    def scheduled(self) -> dict[str, int]:
        return {key.decode(): int(due) for key, due in self.redis.zrange(self.keys.scheduled, 0, -1, withscores=True)}

    def dead(self) -> list[str]:
        return texts(self.redis.zrange(self.keys.dead, 0, -1))

    def job(self, job_id: str) -> dict[str, str]:
        """A job's record as text."""
        return {key.decode(): value.decode() for key, value in self.redis.hgetall(self.keys.job(job_id)).items()}

    def stat(self, name: str) -> int:
        return int(self.redis.hget(self.keys.stats, name) or 0)

    def now_ms(self) -> int:
        seconds, micros = self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def picture(self, *, without: Sequence[str] = ("stats",)) -> dict[str, bytes]:
        """Every key of the namespace, byte for byte: equal before and after means that nothing changed."""
        left_out = {f"{self.root}{name}".encode() for name in without}
        names = sorted(set(self.redis.scan_iter(f"{self.root}*")) - left_out)
        return {name.decode(errors="backslashreplace"): self.redis.dump(name) or b"" for name in names}

    def spoil(self, key: str) -> None:
        """Turn a key into a string: a type that no script expects."""
        self.redis.set(key, "not yours")


def envelope(job_id: str, task: str = "t") -> bytes:
    return encode(Envelope(id=job_id, task=task), 1_000_000)


def texts(values: Sequence[bytes]) -> list[str]:
    return [value.decode("utf-8", "surrogateescape") for value in values]
