"""structlog without what it seldom needs. Each case needs an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOADS = ("rqsup.supervisor.cli.run", "rqsup.supervisor.zygote", "rqsup.logs")
#: A traceback on a terminal, and a line from a coroutine: both as with the structlog that everybody has.
USES = """
import asyncio, io, sys
from rich.console import Console
assert Console().is_terminal is False

async def main():
    await structlog.get_logger().ainfo("from a coroutine")

asyncio.run(main())
try:
    1 / 0
except ZeroDivisionError:
    text = io.StringIO()
    structlog.dev.rich_traceback(text, sys.exc_info())
    assert "Traceback" in text.getvalue() and "╭" in text.getvalue(), text.getvalue()
assert structlog.tracebacks.to_repr([1, 2]) == "[1, 2]"
assert "ZeroDivisionError" in str(structlog.dev.ConsoleRenderer()(None, "info", {"event": "x", "exception": "ZeroDivisionError"}))
"""


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("module", LOADS)
def test_rich_is_not_loaded_and_structlog_can_all_it_could(module: str) -> None:
    run(f"import sys, {module}, structlog\nassert 'rich' not in sys.modules\n{USES}")


def test_asyncio_is_not_loaded_for_a_log() -> None:
    run("import sys, rqsup.logs\nassert 'asyncio' not in sys.modules")


def test_what_is_loaded_already_is_used() -> None:
    run(
        "import sys, asyncio, rich; import rqsup.logs, structlog\n"
        "assert structlog.dev.rich is rich is sys.modules['rich']\n"
        f"assert structlog.stdlib.asyncio is asyncio\n{USES}"
    )


def test_structlog_that_is_loaded_stays() -> None:
    run(
        f"import structlog; own = structlog.dev.rich; assert own; import rqsup.logs; assert structlog.dev.rich is own\n{USES}"
    )


def test_names_that_a_module_does_not_have_are_missed_as_ever() -> None:
    run("import rqsup.logs, structlog\nassert not hasattr(structlog.stdlib.asyncio, 'no_such_name')")


def test_others_that_structlog_imports_get_the_real_ones(tmp_path: Path) -> None:
    # structlog imports this one where it is installed, as it does Twisted.
    (tmp_path / "better_exceptions.py").write_text(
        "import asyncio, rich\n"
        "from asyncio import Future\n"
        "from asyncio.events import AbstractEventLoop\n"
        "from rich.console import Console\n"
        "from rich.table import Table\n"
        "assert all(isinstance(one, type) for one in (Future, AbstractEventLoop, Console, Table, asyncio.Task))\n"
    )

    run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import rqsup.logs, structlog, better_exceptions\n{USES}")
