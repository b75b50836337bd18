"""When a worker has worked enough: pure decisions about its jobs, its age and its memory.

A worn worker is replaced before it leaves, by the plan. Only memory beyond the hard limit is not waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

from rqsup.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Wear:
    """What one worker has been through."""

    #: Attempts that it ended.
    jobs: int
    age_s: float
    #: Private memory (USS) in bytes; 0 = not known.
    memory: int
    #: Its own random number in [0, 1), drawn once: limits of equal workers must not be reached together.
    luck: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that say how much is enough; 0 = without limit."""

    max_jobs: int
    max_age_s: float
    max_memory: int
    max_memory_hard: int
    #: Part of a limit by which a worker's own may be lower.
    jitter: float

    @classmethod
    def of(cls, settings: WorkerSettings) -> Limits:
        """The limits in the settings."""
        return cls(
            settings.max_jobs, settings.max_age, settings.max_memory, settings.max_memory_hard, settings.recycle_jitter
        )

    @property
    def least_memory(self) -> int:
        """Bytes below which no limit of memory can be reached by any worker; 0 = there is none."""
        # At least 1, also with a jitter of 1: 0 would mean that there is no limit.
        soft = max(1, int(self.max_memory * (1 - self.jitter))) if self.max_memory else 0
        return min((limit for limit in (soft, self.max_memory_hard) if limit), default=0)


def why_worn(wear: Wear, limits: Limits) -> str:
    """Why the worker should be replaced once its job is done, in words; empty = it should not."""
    share = 1 - limits.jitter * wear.luck
    if limits.max_jobs and wear.jobs >= max(1, limits.max_jobs * share):
        return f"it ran {wear.jobs} jobs (workers.max_jobs)"
    if limits.max_age_s and wear.age_s >= limits.max_age_s * share:
        return f"it is {wear.age_s:.1f} s old (workers.max_age)"
    if limits.max_memory and wear.memory >= limits.max_memory * share:
        return f"it uses {in_mib(wear.memory)} of memory of its own (workers.max_memory)"
    if limits.max_memory_hard and wear.memory >= limits.max_memory_hard:
        return f"it uses {in_mib(wear.memory)} of memory of its own (workers.max_memory_hard)"
    return ""


def why_kill(memory: int, limits: Limits) -> str:
    """Why a worker inside a job cannot be waited for, in words; empty = it can.

    Without jitter, because the job is charged for it. An idle worker with so much memory is only worn.
    """
    if limits.max_memory_hard and memory >= limits.max_memory_hard:
        allowed = in_mib(limits.max_memory_hard)
        return f"memory limit: used {in_mib(memory)}, allowed are {allowed} (workers.max_memory_hard)"
    return ""


def at_a_time(target: int, share: float) -> int:
    """How many workers may be replaced at the same time."""
    return max(1, int(target * share))


def in_mib(size: int) -> str:
    """Bytes for people.

    >>> in_mib(5 << 20)
    '5.0 MiB'
    """
    return f"{size / 2**20:.1f} MiB"
