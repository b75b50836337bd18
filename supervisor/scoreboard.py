"""The scoreboard: one slot per worker in anonymous shared memory, and the totals of workers that are gone."""

from __future__ import annotations

import os
from collections.abc import Iterable
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
        self.folded: dict[str, int] = dict.fromkeys(COUNTERS, 0)

    def inherit(self, descriptor: int, folded: dict[str, int], lent: Iterable[int]) -> None:
        """Go on with the memory of the program before this one, and with the slots of workers that live."""
        os.close(self.descriptor)
        self.descriptor, self._memory = descriptor, mmap(descriptor, 0)
        self.folded |= folded
        self._lent = {index: slot_at(self._memory, index) for index in lent}
        slots = len(self._memory) // STRIDE
        self._free = [index for index in range(slots - 1, -1, -1) if index not in self._lent]

    def slot(self, index: int) -> Slot:
        """A slot that is lent."""
        return self._lent[index]

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
            self.folded[name] += getattr(slot, name)
        self._free.append(index)

    def totals(self) -> dict[str, int]:
        """Each counter over all workers, living and dead."""
        return {
            name: folded + sum(getattr(slot, name) for slot in self._lent.values())
            for name, folded in self.folded.items()
        }
