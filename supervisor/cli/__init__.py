"""The command line: one group, one module per kind of command."""

from __future__ import annotations

import click

import rqsup
from rqsup.supervisor.cli.admin import admin
from rqsup.supervisor.cli.config_commands import config_group
from rqsup.supervisor.cli.demo import demo
from rqsup.supervisor.cli.frame import ErrorGroup
from rqsup.supervisor.cli.operate import quiet, reload, resume, scale, status, stop, upgrade
from rqsup.supervisor.cli.produce import produce
from rqsup.supervisor.cli.run import run
from rqsup.supervisor.cli.signal import send_signal
from rqsup.supervisor.cli.stacks import stacks
from rqsup.supervisor.cli.systemd import systemd_group
from rqsup.supervisor.cli.top_command import top
from rqsup.supervisor.cli.watch import events, kill


@click.group(cls=ErrorGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rqsup.__version__, prog_name="rqsup", message="%(prog)s %(version)s")
def main() -> None:
    """A Redis work queue that owns its worker processes: at least once, nothing lost."""


for command in (
    run, status, reload, upgrade, stop, quiet, resume, scale, top, events, stacks, kill, produce, demo, admin, config_group,
    systemd_group, send_signal,
):  # fmt: skip
    main.add_command(command)
