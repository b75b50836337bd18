"""Logs: formats, levels, lines that cannot be forged, and a way out that never fails its process."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from rqsup.logs import LINE_BYTES, Lines, configure, get_logger
from rqsup.settings import LogSettings

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


@pytest.fixture(autouse=True)
def fresh_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "log").open("w") as file:
        yield file


def text_of(file: TextIO) -> str:
    return Path(file.name).read_text(encoding="utf-8")


def events_of(file: TextIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(file).splitlines()]


def run_python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False, **options
    )


def test_json_has_one_object_a_line_with_constant_fields_first(log_file: TextIO) -> None:
    configure(LogSettings(format="json"), stream=log_file, environ={})

    get_logger("rqsup.master", pool="mail").warning("worker died", worker="h-1", pid=7)

    (event,) = events_of(log_file)
    assert list(event) == ["time", "level", "logger", "event", "pool", "worker", "pid"]
    assert re.fullmatch(TIME, event.pop("time"))
    assert event == {
        "level": "warning", "logger": "rqsup.master", "event": "worker died", "pool": "mail", "worker": "h-1", "pid": 7,
    }  # fmt: skip


def test_console_is_one_readable_line(log_file: TextIO) -> None:
    configure(LogSettings(format="console"), stream=log_file, environ={})

    get_logger("rqsup.master").info("worker ready", worker="h-1", note="a b", empty="")

    assert re.fullmatch(
        rf'{TIME} info    rqsup.master: worker ready worker=h-1 note="a b" empty=""\n', text_of(log_file)
    )


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_journal_puts_the_priority_in_front_and_leaves_the_time_to_journald(
    log_file: TextIO, level: str, priority: int
) -> None:
    configure(LogSettings(format="journal", level="debug"), stream=log_file, environ={})

    getattr(get_logger("rqsup.master"), level)("worker ready", pid=7)

    assert text_of(log_file) == f"<{priority}>rqsup.master: worker ready pid=7\n"


def test_auto_means_json_in_a_file(log_file: TextIO) -> None:
    configure(LogSettings(), stream=log_file, environ={})
    get_logger("x").info("e")

    assert events_of(log_file)[0]["event"] == "e"


def test_auto_means_journal_when_journald_reads_this_very_descriptor(log_file: TextIO) -> None:
    found = os.fstat(log_file.fileno())
    configure(LogSettings(), stream=log_file, environ={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    get_logger("x").info("e")
    configure(LogSettings(), stream=log_file, environ={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
    get_logger("x").info("f")

    assert text_of(log_file).startswith("<6>x: e\n{")


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_auto_means_console_on_a_terminal(environ: dict[str, str], coloured: bool) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        configure(LogSettings(), stream=terminal, environ=environ)
        get_logger("x").error("e")
    # A terminal may hand a line over in pieces.
    line = ""
    while not line.endswith("\n"):
        line += os.read(leader, 1000).decode()
    os.close(leader)

    assert ("\x1b[31merror  \x1b[0m x: e" in line) is coloured
    assert "x: e\r\n" in line


@pytest.mark.parametrize("chosen", ["json", "console", "journal"])
@pytest.mark.parametrize(
    "evil",
    [
        "a\nb",
        "a\r\nb",
        "\x1b[2Ja",
        "\x9b2Ja",
        "a\x00b",
        "a\u202eb",
        "a\u2066b",
        "a\u2028b",
        "a\x85b",
        "a\udcffb",
        "a\u200fb",
    ],
)
def test_no_value_can_forge_or_hide_a_line(log_file: TextIO, chosen: Any, evil: str) -> None:
    configure(LogSettings(format=chosen), stream=log_file, environ={})

    get_logger(evil, **{evil: evil}).info(evil, deep={"k": [evil]})

    text = text_of(log_file)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]", text)


def test_json_keeps_what_was_said(log_file: TextIO) -> None:
    configure(LogSettings(format="json"), stream=log_file, environ={})

    get_logger("x").info("Grüße\n\u202e\x9b", n=1.5, yes=True, none=None, items=[1, "a"])

    event = events_of(log_file)[0]
    assert event["event"] == "Grüße\n\u202e\x9b"
    assert (event["n"], event["yes"], event["none"], event["items"]) == (1.5, True, None, [1, "a"])
    assert "Grüße" in text_of(log_file)


@pytest.mark.parametrize("chosen", ["console", "journal"])
def test_a_traceback_cannot_pass_for_events(log_file: TextIO, chosen: Any) -> None:
    configure(LogSettings(format=chosen), stream=log_file, environ={})

    try:
        raise ValueError("x\n<2>rqsup: forged\n2026-01-01T00:00:00.000000Z error forged")
    except ValueError:
        get_logger("x").exception("job failed")

    first, *rest = text_of(log_file).splitlines()
    assert "x: job failed" in first
    assert len(rest) > 3
    prefix = "<3>  | " if chosen == "journal" else "  | "
    assert all(line.startswith(prefix) for line in rest)


def test_json_holds_the_traceback_in_its_line(log_file: TextIO) -> None:
    configure(LogSettings(format="json"), stream=log_file, environ={})

    try:
        raise ValueError("x")
    except ValueError:
        get_logger("x").exception("job failed")

    (event,) = events_of(log_file)
    assert event["level"] == "error"
    assert event["exception"].endswith("ValueError: x")


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def circle() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize("chosen", ["json", "console", "journal"])
@pytest.mark.parametrize(
    "make", [Unprintable, circle, lambda: float("nan"), lambda: {(1, 2): b"x"}, lambda: {Unprintable}]
)
def test_a_value_of_any_kind_makes_a_line(log_file: TextIO, chosen: Any, make: Callable[[], Any]) -> None:
    configure(LogSettings(format=chosen), stream=log_file, environ={})

    get_logger("x").info("still here", value=make())

    text = text_of(log_file)
    assert "still here" in text
    assert "value" in text
    assert text.count("\n") == 1


def test_the_level_holds_for_loggers_made_before_and_after(log_file: TextIO) -> None:
    before = get_logger("before")
    configure(LogSettings(format="json", level="warning"), stream=log_file, environ={})
    before.info("no")
    before.warning("one")
    configure(LogSettings(format="json", level="debug"), stream=log_file, environ={})
    before.debug("two")
    get_logger("after").debug("three")

    assert [event["event"] for event in events_of(log_file)] == ["one", "two", "three"]


def test_a_line_has_a_greatest_length(log_file: TextIO) -> None:
    configure(LogSettings(format="json"), stream=log_file, environ={})

    get_logger("x").info("ü" * LINE_BYTES)

    data = Path(log_file.name).read_bytes()
    assert len(data) <= LINE_BYTES
    assert data.endswith(b" ...[cut]\n")
    data.decode()


def test_lines_of_many_processes_do_not_mix(tmp_path: Path) -> None:
    code = (
        "import os, sys; from rqsup.settings import LogSettings; from rqsup.logs import configure, get_logger\n"
        "configure(LogSettings(format='json')); log = get_logger('x')\n"
        "children = []\n"
        "for number in range(4):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        [log.info('e' * 500, number=number) for _ in range(300)]; os._exit(0)\n"
        "    children.append(pid)\n"
        "[os.waitpid(pid, 0) for pid in children]\n"
    )
    answer = run_python(code)

    events = [json.loads(line) for line in answer.stderr.splitlines()]
    assert len(events) == 4 * 300
    assert {event["number"] for event in events} == {0, 1, 2, 3}


def test_a_closed_standard_error_does_not_stop_the_process() -> None:
    code = (
        "import os, sys; from rqsup.settings import LogSettings; from rqsup.logs import configure, get_logger\n"
        "lines = configure(LogSettings())\n"
        "os.close(2); get_logger('x').error('lost'); print(lines.dropped)\n"
        "sys.stderr = None; lines = configure(LogSettings()); get_logger('x').error('lost'); print(lines.dropped)\n"
    )
    answer = run_python(code)

    assert (answer.returncode, answer.stdout.split()) == (0, ["1", "1"])


def test_a_full_disk_is_counted() -> None:
    with Path("/dev/full").open("w") as full:
        lines = configure(LogSettings(format="json"), stream=full, environ={})
        get_logger("x").error("lost")
        get_logger("x").error("lost")

    assert lines.dropped == 2


def test_a_reader_that_reads_no_more_costs_lines_but_never_blocks() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer)
    for _ in range(200):
        lines.write(b"x" * 999 + b"\n")
    dropped = lines.dropped
    while len(os.read(reader, 65536)) == 65536:
        pass
    lines.write(b"again\n")

    assert 0 < dropped < 200
    assert lines.dropped == dropped
    assert os.read(reader, 65536).endswith(b"again\n")
    os.close(reader)
    os.close(writer)


def test_a_line_after_a_cut_one_stands_alone() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = Lines(writer)
    lines.write(b"x" * 100_000 + b"\n")  # more than a pipe holds
    os.read(reader, 100_000)
    lines.write(b"next\n")

    assert lines.dropped == 1
    assert os.read(reader, 100_000) == b"\nnext\n"
    os.close(reader)
    os.close(writer)


def test_records_of_standard_logging_become_the_same_lines_with_the_job() -> None:
    code = (
        "import logging; from rqsup import context; from rqsup.settings import LogSettings; from rqsup.logs import configure\n"
        "configure(LogSettings(format='json'))\n"
        "log = logging.getLogger('shop.mail'); log.debug('no'); log.info('plain %d', 7); log.info('bad %d', 'x')\n"
        "logging.root.handlers[0].addFilter(lambda record: 'secret' not in record.msg); log.error('secret')\n"
        "job = context.JobContext('j1', 'mail.send', 'mail', 2, 5, 'w', 1, None, lambda: 1.0, lambda: False)\n"
        "token = context.enter(job)\n"
        "try:\n"
        "    1 / 0\n"
        "except ZeroDivisionError:\n"
        "    log.critical('in a job', exc_info=True)\n"
    )
    answer = run_python(code)

    plain, bad, inside = [json.loads(line) for line in answer.stderr.splitlines()]
    assert (plain["logger"], plain["event"], plain["level"]) == ("shop.mail", "plain 7", "info")
    assert bad["event"] == "bad %d ('x',)"
    assert (inside["level"], inside["job_id"], inside["task"], inside["attempt"]) == ("critical", "j1", "mail.send", 2)
    assert "ZeroDivisionError" in inside["exception"]


def test_logging_that_the_application_set_up_is_left_to_it() -> None:
    code = (
        "import logging; from rqsup.settings import LogSettings; from rqsup.logs import configure\n"
        "logging.basicConfig(format='mine %(message)s', level='DEBUG')\n"
        "configure(LogSettings(format='json')); configure(LogSettings(format='json')); logging.debug('x')\n"
    )

    assert run_python(code).stderr == "mine x\n"


def test_a_stream_without_descriptor_means_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    import io

    configure(LogSettings(format="json"), stream=io.StringIO(), environ={})
    get_logger("x").info("e")

    assert '"event":"e"' in capfd.readouterr().err
