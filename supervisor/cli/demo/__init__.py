"""`rqsup demo`: the whole of rqsup in one command, on files of this machine."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rqsup.errors import RedisUnavailable
from rqsup.supervisor import exits
from rqsup.supervisor.cli.frame import config_option, console, json_option, print_json

if TYPE_CHECKING:
    from rqsup.supervisor.cli.demo.play import Outcome
    from rqsup.supervisor.cli.demo.view import View

#: A tree that every machine has.
DEFAULT_DIRECTORY = "/usr/share/doc"
#: Exit status of a command ended by Ctrl-C, as shells expect it.
INTERRUPTED = 130


@click.command()
@click.argument("directory", metavar="[DIR]", default=DEFAULT_DIRECTORY, type=click.Path(exists=True, file_okay=False))
@config_option
@json_option
@click.pass_context
def demo(ctx: click.Context, directory: str, config: str | None, as_json: bool) -> None:
    """Make a job of each file below DIR, run them on four workers, and kill one of them on the way.

    Each job reads its file and returns its size and SHA-256. Without DIR, /usr/share/doc is taken. A Redis server
    is started for it, unless redis.url is configured. Exit status 0 only when nothing was lost.
    """
    import redis  # 20 MiB that the master must not carry, as what follows

    from rqsup.supervisor.cli.demo.play import empty

    logging.getLogger("rqsup").propagate = False  # on the screen, warnings would tear the picture
    logging.getLogger("rqsup").addHandler(logging.NullHandler())
    if empty(Path(directory)):
        raise click.UsageError(f"{directory} holds no file that could be read: choose another DIR")
    interrupted = _heed_signals()
    try:
        outcome = _play(Path(directory).resolve(), config, interrupted)
    except KeyboardInterrupt:
        click.echo("interrupted: all is stopped", err=True)
        ctx.exit(INTERRUPTED)
    except (redis.ConnectionError, redis.TimeoutError) as fault:
        raise RedisUnavailable(f"Redis went away in the middle of the demo: {fault}") from fault
    _report(outcome, as_json=as_json)
    ctx.exit(exits.OK if outcome.well else exits.FAILURE)


def _play(directory: Path, config: str | None, interrupted: threading.Event) -> Outcome:
    from rqsup.client import Client
    from rqsup.supervisor.cli.demo.play import Play
    from rqsup.supervisor.cli.demo.stage import Stage
    from rqsup.supervisor.cli.demo.tally import Ledger

    view = _view(str(directory))
    # The stage outlives the view: what it tells at the end must not be drawn over.
    with (
        Stage(config, view.event) as stage,
        Client(settings=stage.settings) as client,
        Ledger(stage.folder / "ids") as ledger,
    ):
        _log_to(stage.folder / "demo.log")
        with view:
            outcome = Play(stage, directory, view, client, ledger, interrupted=interrupted).run()
        if not outcome.well:
            stage.keep_log()
    return outcome


def _view(directory: str) -> View:
    from rqsup.supervisor.cli.demo.view import LiveView, PlainView

    screen = console()
    return LiveView(screen, directory) if screen.is_terminal else PlainView()


def _report(outcome: Outcome, *, as_json: bool) -> None:
    from rqsup.supervisor.cli.demo import view

    if not as_json:
        view.summary(outcome, console())
    for fault in outcome.faults[:10]:
        click.echo(f"fault: {view.printable(fault)}", err=True)
    if as_json:
        print_json(view.as_json(outcome))


def _log_to(path: Path) -> None:
    """Send the library's warnings to a file beside the master's log."""
    logging.getLogger("rqsup").addHandler(logging.FileHandler(path, encoding="utf-8", errors="backslashreplace"))


def _heed_signals() -> threading.Event:
    """Have Ctrl-C and TERM raise KeyboardInterrupt, and set this event.

    Both, because Python drops an exception that is raised while an object is being destroyed.
    """
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    return interrupted
