"""What a process that only sends jobs has loaded. Needs an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What a client needs for inspection, TLS or a configuration file alone.
LATER = ("redis", "yaml", "asyncio", "ssl", "email", "structlog", "rich")


@pytest.mark.parametrize("module", LATER)
def test_a_client_is_made_without(module: str) -> None:
    program = (
        "import sys\nfrom rqsup import Client, Request, task\n"
        "Client('unix:///nobody.sock', namespace='small').close()\n"
        f"assert {module!r} not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True)
