"""`rqsup run`: the master, in the foreground; systemd or a shell keeps it."""

from __future__ import annotations

import ctypes
import threading

import click

from rqsup import logs
from rqsup.config import load
from rqsup.settings import Settings
from rqsup.supervisor.cli.frame import config_option

ROLES = ("all", "worker", "producer", "scheduler")


@click.command()
@config_option
@click.option("--role", type=click.Choice(ROLES), default="all", show_default=True, help="What this process does.")
@click.option("--check-estate", "estate", type=int, hidden=True, help="Only say whether this program could take over.")
@click.pass_context
def run(ctx: click.Context, config: str | None, role: str, estate: int | None) -> None:
    """Start a master with its workers.

    all = workers, scheduler and reaper; worker = workers only; scheduler = scheduler and reaper only;
    producer = a job for each file of producer.root.
    """
    if role == "producer":
        settings = load(config)
        logs.configure(settings.log)
        _produce(settings)
    else:
        ctx.exit(_supervise(config, role, estate))


def _supervise(config: str | None, role: str, estate: int | None) -> int:
    # asyncio and Redis take 20 MiB, which no other command should load.
    from rqsup.supervisor import succession
    from rqsup.supervisor.role import Role

    _return_memory()
    if estate is None:
        return succession.supervise(config, Role(role))
    click.echo(succession.check(config, estate))
    return 0


def _return_memory() -> None:
    """Give back to the kernel what the imports needed and freed: glibc keeps it, and other C libraries do not."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _produce(settings: Settings) -> None:
    import signal

    from rqsup.supervisor.cli.produce import run_producer

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_producer(settings, stop, logs.get_logger("producer", pool=settings.pool))
