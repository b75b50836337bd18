"""structlog without rich, in the command line's process alone. Each case needs an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

LATER = "import rich.console; assert rich.console.Console().is_terminal is False"


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            "import sys, rqsup.supervisor.cli, structlog; assert structlog.dev.rich is None; assert 'rich' not in sys.modules; "
            + LATER,
            id="rich is not loaded, and can be later",
        ),
        pytest.param(
            "import sys, rich; import rqsup.supervisor.cli, structlog; assert structlog.dev.rich is rich is sys.modules['rich']; "
            + LATER,
            id="rich that is loaded stays",
        ),
        pytest.param(
            "import structlog; own = structlog.dev.rich; assert own; import rqsup.supervisor.cli; assert structlog.dev.rich is own; "
            + LATER,
            id="structlog that is loaded stays",
        ),
        pytest.param(
            "import rqsup.supervisor.zygote, structlog; assert structlog.dev.rich",
            id="applications get structlog with all it can do",
        ),
    ],
)
def test_rich_is_hidden_from_structlog_alone(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
