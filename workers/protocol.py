"""What a master, its zygotes and its workers have to agree on, although their code may be of different versions.

An upgrade leaves a new master with workers and a zygote of the old code, and a reload after an installation an old
master with those of the new.
"""

from __future__ import annotations

import ctypes
import zlib

from rqsup.workers.slot import Slot

#: Raised when the channel, or the messages to and from a zygote, would be misunderstood.
NUMBER = 1


def protocol() -> str:
    """The number of the messages, and a sum over the layout of a slot."""
    layout = repr([(field[0], field[1].__name__, getattr(Slot, field[0]).offset) for field in Slot._fields_])
    return f"{NUMBER}.{zlib.crc32(f'{layout} {ctypes.sizeof(Slot)}'.encode()):08x}"
