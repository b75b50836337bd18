"""`rqsup produce`, and `rqsup run --role producer`: a job for each file of a directory."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec

from rqsup import logs
from rqsup.config import load
from rqsup.errors import ConfigError
from rqsup.settings import Settings
from rqsup.supervisor.cli.frame import config_option, json_option, print_json

if TYPE_CHECKING:
    from rqsup.client import Client
    from rqsup.producer import Producer, Progress

#: Seconds between two lines of progress in a log, on a screen without a terminal, and on a terminal.
LOG_EVERY_S, LINE_EVERY_S, DRAW_EVERY_S = 10.0, 3.0, 0.1
#: Exit status of a command ended by Ctrl-C, as shells expect it.
INTERRUPTED = 130

Show = Callable[["Progress"], None]


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
@config_option
@json_option
@click.option("--task", metavar="NAME", help="Task that each file is sent to.  [default: producer.task]")
@click.option("--queue", metavar="Q", help="Queue of the jobs.  [default: producer.queue]")
@click.option("--rate", type=click.FloatRange(min=0), metavar="N", help="Jobs per second, 0 = no limit.")
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Send only what matches; relative to DIR, ** = any folders."
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches; may be repeated, as --include.")
@click.pass_context
def produce(
    ctx: click.Context, *, directory: str, config: str | None, as_json: bool, task: str | None, queue: str | None,
    rate: float | None, include: tuple[str, ...], exclude: tuple[str, ...],
) -> None:  # fmt: skip
    """Send a job for each file below DIR; its path is the task's only argument.

    Ctrl-C ends it with the summary; what was accepted until then stays accepted.
    """
    settings = load(config)
    logs.configure(settings.log)
    given = {"task": task, "queue": queue, "rate": rate, "include": list(include), "exclude": list(exclude)}
    chosen = {key: value for key, value in given.items() if value not in (None, [])}
    producer = msgspec.structs.replace(settings.producer, root=directory, **chosen)
    if not producer.task:
        raise click.UsageError(
            "name the task that each file is sent to: --task NAME, or producer.task in the configuration"
        )
    stop = threading.Event()
    with _stopping_at_signals(stop), _screen() as (show, every_s):
        began = time.monotonic()
        progress = _run(msgspec.structs.replace(settings, producer=producer), stop, show, every_s)
    _summarize(progress, time.monotonic() - began, interrupted=stop.is_set(), as_json=as_json)
    ctx.exit(INTERRUPTED if stop.is_set() else 0)


def run_producer(settings: Settings, stop: threading.Event, log: Any) -> Progress:
    """Send the tree of `producer.root` and tell the log how far it is; for `rqsup run --role producer`.

    Raises:
        ConfigError: the settings of the section `producer` have faults.
        RedisUnavailable, ServerUnfit: Redis does not answer at the start, or is not fit.
    """
    _refuse_faults(settings)
    log.info("producer started", root=settings.producer.root, task=settings.producer.task)
    progress = _run(settings, stop, lambda seen: log.info("producing", **_counts(seen)), LOG_EVERY_S)
    log.info("producer stopped" if stop.is_set() else "producer is done", **_counts(progress))
    return progress


def _run(settings: Settings, stop: threading.Event, show: Show, every_s: float) -> Progress:
    from rqsup.client import Client  # the master imports this module, and must stay small
    from rqsup.producer import Producer

    _refuse_faults(settings)
    with Client(settings=settings) as client, ThreadPoolExecutor(1, "rqsup-producer") as pool:
        producer = Producer(client, settings.producer, stop=stop)
        # Not in the main thread: a signal handler that sets `stop` while the same thread holds the
        # event's lock would wait for itself for ever.
        future = pool.submit(_connect_and_send, client, producer, stop)
        return _watch(future, lambda: show(producer.progress), every_s)


def _refuse_faults(settings: Settings) -> None:
    from rqsup.producer import faults

    problems = faults(settings.producer)
    if problems:
        raise ConfigError(problems, origin="producer")


def _connect_and_send(client: Client, producer: Producer, stop: threading.Event) -> Progress:
    from rqsup.store.connection import await_server

    warn = logs.get_logger("rqsup.producer").warning
    await_server(client.store.client, client.settings.redis, warn, pause=stop.wait)
    return producer.run()


def _watch(future: Future[Progress], show: Callable[[], None], every_s: float) -> Progress:
    while wait([future], timeout=every_s).not_done:
        show()
    show()
    return future.result()


@contextmanager
def _stopping_at_signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or TERM stops in order; a second one ends the process as usual."""

    def first(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _screen() -> Iterator[tuple[Show, float]]:
    """How to show progress, and how often: a live line on a terminal, otherwise now and then a line. On stderr."""
    from rich.console import Console  # 3 MB that the master must not carry
    from rich.live import Live
    from rich.text import Text

    console, began = Console(stderr=True), time.monotonic()
    if not console.is_terminal:
        yield (lambda seen: click.echo(_line(seen, time.monotonic() - began), err=True)), LINE_EVERY_S
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield (lambda seen: live.update(Text(_line(seen, time.monotonic() - began)), refresh=True)), DRAW_EVERY_S


def _line(seen: Progress, elapsed_s: float) -> str:
    rate = seen.sent / elapsed_s if elapsed_s > 0 else 0.0
    return f"{elapsed_s:6.1f} s  {seen.found:,} found  {seen.sent:,} sent  {seen.refused:,} refused  {rate:,.0f} jobs/s"


def _counts(seen: Progress) -> dict[str, int]:
    names = ("found", "sent", "excluded", "refused", "unreadable", "skipped")
    return {name: getattr(seen, name) for name in names}


def _summarize(progress: Progress, elapsed_s: float, *, interrupted: bool, as_json: bool) -> None:
    if as_json:
        jobs_per_s = round(progress.sent / elapsed_s, 1) if elapsed_s > 0 else 0.0
        print_json(
            _counts(progress)
            | {"duration_s": round(elapsed_s, 3), "jobs_per_s": jobs_per_s, "interrupted": interrupted}
        )
        return
    left_out = [
        f"{count:,} {name}" for name, count in _counts(progress).items() if count and name not in {"found", "sent"}
    ]
    click.echo(
        f"{'interrupted: ' if interrupted else ''}{progress.sent:,} jobs sent for {progress.found:,} files in {elapsed_s:.1f} s"
        + (f"; left out: {', '.join(left_out)}" if left_out else "")
    )
