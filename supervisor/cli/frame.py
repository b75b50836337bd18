"""What all commands share: options, output as JSON, and errors turned into one line and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
import msgspec

from rqsup.errors import AppImportError, ConfigError, MasterRefused, RedisUnavailable, RqsupError, ServerUnfit
from rqsup.supervisor import exits

if TYPE_CHECKING:
    from rich.console import Console

#: Adds an option to a command.
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

config_option: Decorator = click.option(
    "-c", "--config", "config", metavar="FILE", envvar="RQSUP_CONFIG", help="Configuration file (YAML)."
)
json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(msgspec.json.encode(value).decode())


def console() -> Console:
    """A console for tables and live views; plain text where there is no terminal."""
    from rich.console import Console  # 3 MB that the master must not carry

    return Console()


def exit_code(fault: RqsupError) -> int:
    """The exit code that tells scripts what kind of error this was."""
    if isinstance(fault, MasterRefused):
        return fault.exit
    if isinstance(fault, ConfigError | AppImportError):
        return exits.CONFIG
    if isinstance(fault, RedisUnavailable | ServerUnfit):
        return exits.REDIS_UNAVAILABLE
    return exits.FAILURE


class ErrorGroup(click.Group):
    """A command group that ends each of rqsup's own errors as one clear message."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an RqsupError, or a wrong word on the command line, becomes one line and its exit code."""
        try:
            return super().invoke(ctx)
        except click.UsageError as fault:
            where = fault.ctx.command_path if fault.ctx else "rqsup"
            message = " ".join(fault.format_message().split())
            click.echo(f"rqsup: error: {message} (`{where} --help` shows what can be said)", err=True)
            ctx.exit(exits.USAGE)
        except RqsupError as fault:
            click.echo(f"rqsup: error: {fault}", err=True)
            ctx.exit(exit_code(fault))
