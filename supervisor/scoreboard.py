"""The scoreboard: one slot per worker in anonymous shared memory, and the totals of workers that are gone."""

from __future__ import annotations

import os
from mmap import mmap

from rqsup.workers.slot import STRIDE, Slot, slot_at

#: Counters in a slot that live on in the totals when its worker dies.
COUNTERS = ("succeeded", "retried", "buried", "crashed", "stale")


class Scoreboard:
    """Lends slots to workers.

    The memory is a memfd: it has no name, needs no clean-up, and goes to a zygote by inheritance.
    """

    def __init__(self, slots: int) -> None:
        self.descriptor = os.memfd_create("rqsup-scoreboard", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, slots * STRIDE)
        self._memory = mmap(self.descriptor, slots * STRIDE)
        self._free = list(range(slots - 1, -1, -1))
        self._lent: dict[int, Slot] = {}
        self._folded = dict.fromkeys(COUNTERS, 0)

    def lend(self) -> tuple[int, Slot] | None:
        """A clean slot and its index; None when all are lent."""
        if not self._free:
            return None
        index = self._free.pop()
        slot = slot_at(self._memory, index)
        slot.clear()
        self._lent[index] = slot
        return index, slot

    def take_back(self, index: int) -> None:
        """Keep the counters of a dead worker's slot, so that no total ever falls; then free the slot."""
        slot = self._lent.pop(index)
        for name in COUNTERS:
            self._folded[name] += getattr(slot, name)
        self._free.append(index)

    def totals(self) -> dict[str, int]:
        """Each counter over all workers, living and dead."""
        return {
            name: folded + sum(getattr(slot, name) for slot in self._lent.values())
            for name, folded in self._folded.items()
        }
