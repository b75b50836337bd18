"""The name of every Redis key, one function each (docs/redis-keys.md).

All keys of a namespace start with `rqsup:{<namespace>}:`. The braces are a Cluster hash tag, so a
namespace lives in one slot and every step can be one atomic script. `lua/_names.lua` mirrors this
module for keys that a script reads out of lists; a test proves the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from rqsup.job import LEVEL_LABELS


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names of one namespace."""

    namespace: str

    @property
    def root(self) -> str:
        """Prefix of all keys of the namespace."""
        return f"rqsup:{{{self.namespace}}}:"

    def job(self, job_id: str) -> str:
        """Hash: one job's record."""
        return f"{self.root}job:{job_id}"

    def ready(self, lane: str) -> str:
        """List: ids ready to run, in one lane; consumed from the right."""
        return f"{self.root}ready:{lane}"

    def idle(self, queue: str) -> str:
        """Set: workers that may wait for this queue (hints; `waiting` decides)."""
        return f"{self.root}idle:{queue}"

    def inbox(self, worker: str) -> str:
        """List: ids handed to a waiting worker."""
        return f"{self.root}inbox:{worker}"

    def processing(self, worker: str) -> str:
        """List: ids in this worker's hands."""
        return f"{self.root}processing:{worker}"

    def worker(self, worker: str) -> str:
        """String with TTL: JSON details of a living worker."""
        return f"{self.root}worker:{worker}"

    @property
    def workers(self) -> str:
        """Hash: the registry; worker id to beat counter."""
        return f"{self.root}workers"

    @property
    def waiting(self) -> str:
        """Set: workers that wait in their inbox right now."""
        return f"{self.root}waiting"

    @property
    def scheduled(self) -> str:
        """Sorted set: ids by due time, ms since the epoch."""
        return f"{self.root}scheduled"

    @property
    def dead(self) -> str:
        """Sorted set: dead letters by time of death, ms since the epoch."""
        return f"{self.root}dead"

    @property
    def queues(self) -> str:
        """Set: names of all queues that ever held a job."""
        return f"{self.root}queues"

    @property
    def stats(self) -> str:
        """Hash: counters since the namespace began."""
        return f"{self.root}stats"

    @property
    def due(self) -> str:
        """Pub/sub channel: a job became the next one due."""
        return f"{self.root}due"


def lanes(queues: list[str]) -> list[str]:
    """Lanes `<queue>:<level>` in strict order: highest level first, then queues as listed.

    >>> lanes(["mail", "default"])[:3]
    ['mail:critical', 'default:critical', 'mail:very_high']
    """
    return [f"{queue}:{level}" for level in LEVEL_LABELS for queue in queues]
