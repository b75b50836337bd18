"""The fixture of all script tests."""

from __future__ import annotations

import pytest

from rqsup import Client
from tests.rqsup.store.raw import Raw


@pytest.fixture
def raw(client: Client) -> Raw:
    """An empty namespace on a real server, with worker `w` registered."""
    raw = Raw(client)
    raw.register("w")
    return raw
