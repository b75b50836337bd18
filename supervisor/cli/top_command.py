"""`rqsup top`: the command; the view is in `top`, which needs rich."""

from __future__ import annotations

import sys

import click
import msgspec

from rqsup.supervisor import exits
from rqsup.supervisor.cli.frame import print_json

#: Columns of a picture that goes to no terminal.
NO_TERMINAL_WIDTH = 120


@click.command()
@click.option(
    "-c", "--config", "configs", metavar="FILE", multiple=True, envvar="RQSUP_CONFIG",
    help="Configuration of a pool; may be given several times.",
)  # fmt: skip
@click.option(
    "--interval", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("--once", is_flag=True, help="Print one picture and end; so it is without a terminal, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one picture as a JSON object.")
@click.pass_context
def top(ctx: click.Context, configs: tuple[str, ...], interval: float, *, once: bool, as_json: bool) -> None:
    """Watch pools, queues, workers and rates live; Enter shows the chosen worker's job.

    Exit status 1 when one of the pools does not answer (with --once or --json).
    """
    from rich.console import Console  # 3 MB that the master must not carry

    from rqsup.supervisor.cli.top import Top

    view = Top(configs or (None,), interval)
    live = sys.stdin.isatty() and sys.stdout.isatty() and not once and not as_json
    try:
        if live:
            view.run(Console())
            return
        looks = view.once()
        if as_json:
            print_json({"pools": [msgspec.to_builtins(one) for one in looks]})
        else:
            console = Console(width=None if sys.stdout.isatty() else NO_TERMINAL_WIDTH)
            console.print(view.frame(console.width, None))
        ctx.exit(exits.OK if all(one.snapshot for one in looks) else exits.FAILURE)
    except KeyboardInterrupt:
        return  # as good as `q`
    finally:
        view.close()
