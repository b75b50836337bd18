"""Fixtures of all tests of what speaks to Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rqsup import Client
from tests.rqsup.store.raw import Raw
from tests.rqsup.store.tls import serving


@pytest.fixture
def raw(client: Client) -> Raw:
    """An empty namespace on a real server, with worker `w` registered."""
    raw = Raw(client)
    raw.register("w")
    return raw


@pytest.fixture(scope="module")
def tls(redis_binary: str) -> Iterator[tuple[int, Path, Path]]:
    """A server behind TLS: its port, its CA, and another CA."""
    with serving(redis_binary) as served:
        yield served
