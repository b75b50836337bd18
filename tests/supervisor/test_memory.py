"""What the kernel says about memory."""

from __future__ import annotations

import mmap
import os

import psutil
import pytest

from rqsup.supervisor import memory


def test_private_memory_is_what_psutil_calls_uss_and_not_more_than_what_is_resident() -> None:
    uss = psutil.Process().memory_full_info().uss

    assert memory.private(os.getpid()) == pytest.approx(uss, rel=0.05)
    assert memory.private(os.getpid()) <= memory.resident(os.getpid())


def test_private_memory_grows_with_what_is_written() -> None:
    before = memory.private(os.getpid())

    # Pages of its own: the allocator may hand out memory that this process has written before.
    with mmap.mmap(-1, 32 << 20) as ballast:
        ballast.write(b"\xff" * len(ballast))

        assert memory.private(os.getpid()) >= before + len(ballast) * 0.9


@pytest.mark.parametrize("read", [memory.private, memory.resident])
def test_no_process_has_no_memory(read: object) -> None:
    assert callable(read)
    with pytest.raises(OSError, match="No such file"):
        read(2**22 + 1)
