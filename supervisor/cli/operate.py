"""Commands that operate a running master: status, reload, upgrade, stop, quiet, resume, scale."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import click
import msgspec

from rqsup.config import load
from rqsup.errors import MasterRefused, MasterUnreachable, RqsupError
from rqsup.settings import MAX_WORKERS, Settings
from rqsup.supervisor import exits
from rqsup.supervisor.cli.frame import config_option, console, json_option, print_json
from rqsup.supervisor.cli.master_process import MasterProcess
from rqsup.supervisor.ports import dial
from rqsup.supervisor.snapshot import Snapshot

#: Seconds for a command that the master carries out at once.
PROMPT_TIMEOUT_S = 10.0
#: Seconds beyond drain and grace that `stop` gives the master to close its ports and exit.
STOP_MARGIN_S = 15.0

pid_option: Callable[..., Any] = click.option(
    "--pid", type=click.IntRange(min=1), metavar="PID", help="Send a signal to this master instead of using its socket."
)


@click.command()
@config_option
@json_option
@click.pass_context
def status(ctx: click.Context, config: str | None, as_json: bool) -> None:
    """Show the master and its workers.

    Exit status 0 while all is well, 1 when the pool is degraded, Redis is away or no master answers.
    """
    answer = _request(load(config), "status", {}, timeout_s=PROMPT_TIMEOUT_S)
    try:
        snapshot = msgspec.convert(answer, Snapshot)
    except msgspec.ValidationError as fault:
        raise RqsupError(
            f"the master shows its status in a way that this rqsup does not know ({fault}): use its version"
        ) from fault
    if as_json:
        print_json(answer)
    else:
        from rqsup.supervisor.cli.status_view import show  # needs rich, which the master must not carry

        show(snapshot, console())
    well = snapshot.redis_ok and not snapshot.degraded and snapshot.state != "degraded"
    ctx.exit(exits.OK if well else exits.FAILURE)


@click.command()
@config_option
@click.option(
    "--wait",
    type=click.Choice(["ready", "drained"]),
    is_flag=False,
    flag_value="ready",
    help="Until the new workers are ready (also without this option), or until the old ones have gone, too.",
)
@pid_option
def reload(config: str | None, wait: str | None, pid: int | None) -> None:
    """Replace the workers, one by one, by workers with new code and configuration.

    Returns when the new workers are ready. Exit status 0 when it went well; if not, everything stays as it was.
    """
    if pid is not None:
        if wait:
            raise click.UsageError("--wait needs the control socket: leave out --pid, or watch the master's log.")
        _send(pid, signal.SIGHUP, "it reloads; its log says how that ends")
        return
    # No deadline: the master's own ones bound each step of a reload, and its end closes the connection.
    answer = _request(load(config), "reload", {"wait": wait} if wait else {}, timeout_s=None)
    click.echo(f"generation {answer['generation']} has taken over" if "generation" in answer else "reload is under way")


@click.command()
@config_option
@click.option(
    "--wait",
    type=click.Choice(["ready", "drained"]),
    is_flag=False,
    flag_value="ready",
    help="Until the new workers are ready (also without this option), or until the old ones have gone, too.",
)
@json_option
@pid_option
def upgrade(config: str | None, wait: str | None, as_json: bool, pid: int | None) -> None:
    """Have the rqsup that is installed now take the place of the running master; no job is stopped.

    The process stays the same, and so do its workers, which are then replaced as by `reload`. Exit status 0 when all
    went well; if the new rqsup cannot take over, the old one goes on.
    """
    if pid is not None:
        if wait or as_json:
            raise click.UsageError(
                "--wait and --json need the control socket: leave out --pid, or watch the master's log."
            )
        _send(pid, signal.SIGUSR2, "it upgrades; its log says how that ends")
        return
    steps: list[str] = []
    tell = steps.append if as_json else click.echo
    arguments = {"wait": wait} if wait else {}
    # No deadline, as for a reload: the same connection goes over to the new program.
    answer = dial.request(load(config).control.socket, "upgrade", arguments, timeout_s=None, on_progress=tell)
    if as_json:
        print_json(answer | {"steps": steps})
    else:
        click.echo(f"rqsup {answer['rqsup']} runs the pool, before it was {answer['from']}")


@click.command()
@config_option
@click.option("--now", is_flag=True, help="Do not drain: running jobs go back to their queues.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Seconds to wait until the master is gone; default: its drain timeout and a margin.",
)
@pid_option
def stop(config: str | None, now: bool, timeout_s: float | None, pid: int | None) -> None:
    """Let running jobs finish, then end the master and its workers; wait until they are gone.

    Exit status 75 when the drain deadline passed, so that unfinished jobs went back to their queues.
    """
    settings = load(config)
    limit_s = timeout_s or settings.workers.drain_timeout + settings.workers.shutdown_grace + STOP_MARGIN_S
    if pid is not None:
        with MasterProcess(pid) as master:
            master.send(signal.SIGINT if now else signal.SIGTERM)
            master.wait_until_gone(limit_s, click.echo)
    else:
        _stop_by_socket(settings, limit_s, now=now)
    click.echo("stopped")


@click.command()
@config_option
@pid_option
def quiet(config: str | None, pid: int | None) -> None:
    """Have the workers finish their jobs and take no new ones."""
    if pid is not None:
        _send(pid, signal.SIGTSTP, "its workers take no new jobs")
    else:
        _ask(load(config), "quiet", {}, done="quiet: workers take no new jobs; `rqsup resume` ends that")


@click.command()
@config_option
@pid_option
def resume(config: str | None, pid: int | None) -> None:
    """Have the workers take jobs again after `quiet`."""
    if pid is not None:
        _send(pid, signal.SIGCONT, "its workers take jobs again")
    else:
        _ask(load(config), "resume", {}, done="resumed: workers take jobs again")


@click.command()
@click.argument("workers", type=click.IntRange(1, MAX_WORKERS), metavar="N", required=False)
@click.option("--reset", is_flag=True, help="Go back to the configured number, or to the autoscaler.")
@config_option
def scale(workers: int | None, reset: bool, config: str | None) -> None:
    """Run N workers from now on; a reload keeps that, --reset ends it."""
    if (workers is None) != reset:
        raise click.UsageError("Say either how many workers, as in `rqsup scale 8`, or --reset.")
    if reset:
        answer = _request(load(config), "scale", {"reset": True}, timeout_s=PROMPT_TIMEOUT_S)
        click.echo(f"{answer.get('target', 'the configured number of')} workers wanted, as configured")
    else:
        _ask(load(config), "scale", {"workers": workers}, done=f"{workers} workers wanted")


def _ask(settings: Settings, command: str, arguments: dict[str, Any], *, done: str) -> None:
    _request(settings, command, arguments, timeout_s=PROMPT_TIMEOUT_S)
    click.echo(done)


def _request(settings: Settings, command: str, arguments: dict[str, Any], *, timeout_s: float | None) -> dict[str, Any]:
    return dial.request(settings.control.socket, command, arguments, timeout_s=timeout_s, on_progress=click.echo)


def _send(pid: int, number: signal.Signals, meaning: str) -> None:
    with MasterProcess(pid) as master:
        master.send(number)
    click.echo(f"sent {number.name} to master {pid}: {meaning}")


def _stop_by_socket(settings: Settings, limit_s: float, *, now: bool) -> None:
    with MasterProcess(dial.master_pid(settings.control.socket), trusted=True) as master:
        overrun: MasterRefused | None = None
        try:
            answer = _request(settings, "stop", {"now": now}, timeout_s=limit_s)
            if answer.get("drained") is False:
                overrun = MasterRefused(_OVERRUN, exits.DRAIN_TIMED_OUT)
        except MasterRefused as fault:
            if fault.exit != exits.DRAIN_TIMED_OUT:
                raise
            overrun = fault
        except MasterUnreachable:
            if not master.is_gone():  # a master that ends at once may not find the time to answer
                raise
        master.wait_until_gone(limit_s, click.echo)
    if overrun:
        raise overrun


_OVERRUN = "stopped, but the drain deadline passed: unfinished jobs went back to their queues and run again elsewhere"
