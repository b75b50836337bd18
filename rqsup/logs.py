"""Logs: structlog, set up alike for the master, the zygote, the workers and the commands.

Each event is one line on standard error, written by one system call, so that lines of several
processes do not mix. A log can never stop the process that writes it: a line that cannot be
written is counted and dropped. Nothing here holds a lock or a thread, so it may be used on both
sides of a fork.

Names of fields: time, level, logger, event; then, where they are known, pool, worker, generation,
pid, job_id, task, queue, attempt; then the event's own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

from rqsup.context import current_job
from rqsup.errors import NoCurrentJob
from rqsup.lean import structlog
from rqsup.log_lines import Lines as Lines  # noqa: PLC0414 - what `configure` returns
from rqsup.log_lines import open_file
from rqsup.settings import LogSettings

Format = Literal["json", "console", "journal"]
Fields = MutableMapping[str, Any]

#: Longest line in bytes; the rest is cut. The journal's own limit is 48 KiB.
LINE_BYTES = 32_768
#: Priorities of syslog, as journald reads them in `<N>` (sd-daemon(3)).
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
#: What can forge or hide text on a terminal or in a file: control characters C0 and C1, line and
#: paragraph separators, marks and overrides of writing direction, and halves of surrogate pairs.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
#: structlog keeps the field name `logger` for itself until an event is rendered.
_NAME = "logger_name"
_HEAD = ("time", "level", "logger", "event")


class _StandardLogging(logging.Handler):
    """Turns records of the standard library's logging (the application's, asyncio's) into the same lines."""

    def createLock(self) -> None:  # noqa: N802 - the name is given
        """Hold no lock: a line is one system call, and a lock held at a fork would stop the child."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the record if no filter objects; the inherited method needs a lock."""
        kept: Any = self.filter(record)  # a bool, or since Python 3.12 another record in its place
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record with the id of the job that wrote it."""
        try:
            event = record.getMessage()
        except Exception:  # noqa: BLE001 - a format that does not fit its arguments, or a value that cannot be shown
            event = f"{_text(record.msg)} {_text(record.args)}"
        fields: dict[str, Any] = {}
        try:
            job = current_job()
            fields |= {"job_id": job.id, "task": job.task, "attempt": job.attempt}
        except NoCurrentJob:
            pass  # most records come from outside a job
        log = get_logger(record.name, **fields)
        write = getattr(log, _level_of(record.levelno))
        write(event, **({"exc_info": record.exc_info} if record.exc_info else {}))


def configure(
    settings: LogSettings, *, stream: TextIO | None = None, environ: Mapping[str, str] | None = None
) -> Lines:
    """Set up all logs of this process; may be called again, after a fork or with other settings.

    Args:
        stream: where to, unless the settings name a file; default standard error.
        environ: environment variables; default the process's own.

    Returns:
        the way out, which counts dropped lines.
    """
    environ = os.environ if environ is None else environ
    stderr = _descriptor(sys.stderr if stream is None else stream)
    lines = Lines(open_file(settings.file), settings.file) if settings.file else Lines(stderr)
    _Current.lines, _Current.tap = lines, None
    chosen = choose_format(settings, lines.fd, environ)
    level = _Current.level = getattr(logging, settings.level.upper())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _tap,
            *([] if chosen == "journal" else [structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")]),
            structlog.processors.format_exc_info,
            _Renderer(chosen, colours=os.isatty(lines.fd) and "NO_COLOR" not in environ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        # A reload may change the level; a cached logger would keep the old one.
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(level)
    return lines


class _Current:
    """The way out that `configure` set up last."""

    lines: Lines | None = None
    level: int = logging.INFO
    tap: Callable[[Fields], None] | None = None


def tap(take: Callable[[Fields], None]) -> None:
    """Have this function see the fields of each event from info on, also of those that `log.level` keeps out of the log."""
    _Current.tap = take
    level = min(_Current.level, logging.INFO)
    # What is not named here stays as it was.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))


def _tap(_logger: object, method: str, fields: Fields) -> Fields:
    if _Current.tap is not None:
        if method != "debug":
            _Current.tap(dict(fields))
        if getattr(logging, method.upper(), logging.INFO) < _Current.level:
            raise structlog.DropEvent
    return fields


def reopen() -> None:
    """Go over to a new log file now, if the old one was renamed; without this, the next line does."""
    if _Current.lines is not None:
        _Current.lines.follow()


def keep(stderr: int) -> None:
    """Write to this duplicate of standard error from now on: descriptor 2 will be something else."""
    if _Current.lines is not None and not _Current.lines.path:
        _Current.lines.fd = stderr


def descriptor() -> int:
    """The descriptor that this process's log lines go to; -1 before `configure`."""
    return -1 if _Current.lines is None else _Current.lines.fd


def journal_reads(fd: int, environ: Mapping[str, str]) -> bool:
    """True when systemd's journal reads this descriptor, as JOURNAL_STREAM says (systemd.exec(5))."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _adopt_standard_logging(level: int) -> None:
    """Take over records of the standard library's logging, unless the application set that up itself."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_StandardLogging())
    if any(isinstance(handler, _StandardLogging) for handler in root.handlers):
        root.setLevel(level)


def get_logger(name: str, **fields: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger with a name and constant fields; it follows later calls of `configure`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**{_NAME: name}, **fields)
    return logger


def choose_format(settings: LogSettings, fd: int, environ: Mapping[str, str]) -> Format:
    """The format that `auto` means here: journal when systemd reads, console on a terminal, else json."""
    if settings.format != "auto":
        return settings.format
    try:
        if journal_reads(fd, environ):
            return "journal"
        return "console" if os.isatty(fd) else "json"
    except OSError:
        return "json"  # a closed descriptor: nothing will be read anyway


class _Renderer:
    """Last step of each event: fields to one line. Whatever the values are, it returns a line."""

    def __init__(self, chosen: Format, *, colours: bool) -> None:
        self._journal = chosen == "journal"
        self._colours = colours and not self._journal
        self._render = _as_json if chosen == "json" else self._as_text

    def __call__(self, _logger: object, _method: str, fields: Fields) -> bytes:
        if _NAME in fields:
            fields["logger"] = fields.pop(_NAME)
        try:
            return _cut(self._render(fields))
        except Exception as fault:  # noqa: BLE001 - a value of any class must not stop its process; the line tells it
            plain = {key: _text(value) for key, value in fields.items()}
            return _cut(_as_json(plain | {"log_fault": _text(fault)}))

    def _as_text(self, fields: Fields) -> str:
        level, trace = str(fields.pop("level", "info")), fields.pop("exception", None)
        time, name, event = fields.pop("time", None), fields.pop("logger", None), fields.pop("event", "")
        parts = [] if time is None else [_escape(_text(time))]
        if not self._journal:
            parts.append(f"\x1b[{_COLOURS.get(level, '0')}m{level:<7}\x1b[0m" if self._colours else f"{level:<7}")
        parts.append(_escape(_text(event) if name is None else f"{_text(name)}: {_text(event)}"))
        parts += [f"{_escape(str(key))}={_value(value)}" for key, value in fields.items()]
        prefix = f"<{PRIORITIES.get(level, 6)}>" if self._journal else ""
        # Each line of a traceback is marked, so that none can pass for an event of its own.
        lines = [" ".join(parts), *(f"  | {_escape(row)}" for row in _text(trace or "").splitlines())]
        return "\n".join(f"{prefix}{line}" for line in lines)


def _as_json(fields: Fields) -> str:
    ordered = {key: fields[key] for key in _HEAD if key in fields} | dict(fields)
    text = json.dumps(ordered, ensure_ascii=False, allow_nan=False, default=_text, separators=(",", ":"))
    # Control characters are escaped by now; the others that are unsafe stand only inside strings.
    return UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else _text(value)
    plain = text and not re.search(r"[\s=\"'\\]", text) and not UNSAFE.search(text)
    return text if plain else f'"{_escape(text, quote=True)}"'


def _escape(text: str, *, quote: bool = False) -> str:
    if quote:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return UNSAFE.sub(_code, text)


def _code(found: re.Match[str]) -> str:
    number = ord(found.group())
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(number) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return repr(value) if isinstance(value, bytes | list | tuple | dict | set) else str(value)
    except Exception:  # noqa: BLE001 - an object that cannot be shown is still worth its event
        return f"<{type(value).__name__} that cannot be shown>"


def _cut(text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    if len(data) >= LINE_BYTES:
        data = data[: LINE_BYTES - 16].decode("utf-8", "ignore").encode() + b" ...[cut]"
    return data + b"\n"


def _level_of(number: int) -> str:
    known = ((logging.CRITICAL, "critical"), (logging.ERROR, "error"), (logging.WARNING, "warning"))
    return next((name for limit, name in known if number >= limit), "info" if number >= logging.INFO else "debug")


def _descriptor(stream: TextIO | None) -> int:
    try:
        return stream.fileno() if stream is not None else 2
    except (OSError, ValueError):
        return 2  # a stand-in without a descriptor, such as a test runner's
