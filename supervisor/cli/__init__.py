"""The command line: one group, one module per kind of command, each loaded when its command is asked for.

So a master, which is the command `run`, carries no other.
"""

from __future__ import annotations

from importlib import import_module

import click

import rqsup
from rqsup.supervisor.cli.frame import ErrorGroup

#: Module of each command, and its name there.
COMMANDS = {
    "run": ("run", "run"), "status": ("operate", "status"), "reload": ("operate", "reload"), "upgrade": ("operate", "upgrade"),
    "stop": ("operate", "stop"), "quiet": ("operate", "quiet"), "resume": ("operate", "resume"), "scale": ("operate", "scale"),
    "top": ("top_command", "top"), "events": ("watch", "events"), "stacks": ("stacks", "stacks"), "kill": ("watch", "kill"),
    "produce": ("produce", "produce"), "demo": ("demo", "demo"), "admin": ("admin", "admin"),
    "config": ("config_commands", "config_group"), "systemd": ("systemd", "systemd_group"), "signal": ("signal", "send_signal"),
}  # fmt: skip


class _Commands(ErrorGroup):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's method
        """All names, in the order of the help."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's method
        """The command with this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rqsup.__version__, prog_name="rqsup", message="%(prog)s %(version)s")
def main() -> None:
    """A Redis work queue that owns its worker processes: at least once, nothing lost."""
