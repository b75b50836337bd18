"""What an operator does in the storm: each action follows from the seed and its number alone."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """What is done."""

    RELOAD = "reload"
    RELOAD_BY_SIGNAL = "reload by HUP"
    RELOAD_BAD = "bad reload"
    SCALE = "scale"
    QUIET = "quiet and resume"
    KILL_WORKER = "kill -9 of a worker"
    KILL_BUSY = "kill -9 of a busy worker"
    KILL_SEVERAL = "kill -9 of several workers"
    KILL_GROUP = "kill -9 of a job's process group"
    KILL_ZYGOTE = "kill -9 of the zygote"
    FREEZE_MASTER = "SIGSTOP of the master"
    KILL_MASTER = "kill -9 of the master"
    STOP_START = "stop and start"


#: How often each is drawn, relative to the others.
WEIGHTS = {
    Kind.RELOAD: 12, Kind.RELOAD_BY_SIGNAL: 5, Kind.RELOAD_BAD: 10, Kind.SCALE: 14, Kind.QUIET: 7, Kind.KILL_WORKER: 14,
    Kind.KILL_BUSY: 10, Kind.KILL_SEVERAL: 5, Kind.KILL_GROUP: 5, Kind.KILL_ZYGOTE: 8, Kind.FREEZE_MASTER: 6,
    Kind.KILL_MASTER: 3, Kind.STOP_START: 2,
}  # fmt: skip
#: Those that end the master, and with it what it may have leaked.
ENDS_MASTER = frozenset({Kind.KILL_MASTER, Kind.STOP_START})
#: Most workers that an operator wants in the storm.
MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Action:
    """One action; `share` and `many` say which of the things at hand it takes, and how many."""

    number: int
    kind: Kind
    share: float
    many: int
    #: The next action does not wait until this one's wounds are healed, nor for a reload's end.
    hasty: bool

    def __str__(self) -> str:
        return f"{self.number} {self.kind}{f' to {self.many}' if self.kind is Kind.SCALE else ''}{' in haste' if self.hasty else ''}"


def draw(seed: int, number: int, *, keep_master: bool = False) -> Action:
    """Action `number` of the storm of this seed.

    Args:
        keep_master: leave out what ends the master, so that leaks over its life show.
    """
    luck = random.Random(f"{seed}:{number}")
    kinds = [kind for kind in Kind if not (keep_master and kind in ENDS_MASTER)]
    kind = luck.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
    return Action(number, kind, luck.random(), luck.randint(1, MOST_WORKERS), hasty=luck.random() < 0.3)
