"""`rqsup signal NAME`: what the master understands, by name."""

from __future__ import annotations

import signal as signals
from typing import Any

import click

from rqsup.config import load
from rqsup.supervisor.cli.frame import config_option
from rqsup.supervisor.cli.master_process import MasterProcess
from rqsup.supervisor.ports import dial
from rqsup.supervisor.signals import SIGNALS


class SignalName(click.ParamType[signals.Signals]):
    """One of the signals of docs/signals.md, with or without SIG, in any case."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> signals.Signals:
        """The signal of this name."""
        wanted = str(value).upper().removeprefix("SIG")
        known = {number.name.removeprefix("SIG"): number for number in SIGNALS if number is not signals.SIGCHLD}
        if wanted not in known:
            self.fail(f"unknown signal {str(value)!r}: choose one of {', '.join(known)}", param, ctx)
        return known[wanted]


@click.command(name="signal")
@click.argument("number", type=SignalName(), metavar="NAME")
@config_option
def send_signal(number: signals.Signals, config: str | None) -> None:
    """Send a signal to the pool's master, found by its control socket: HUP, TERM, USR1 and the like."""
    with MasterProcess(dial.master_pid(load(config).control.socket), trusted=True) as master:
        master.send(number)
    click.echo(f"sent {number.name} to master {master.pid}: {SIGNALS[number]}")
