"""`rqsup stacks`: where the workers of a running master are."""

from __future__ import annotations

import click

from rqsup.config import load
from rqsup.supervisor.cli.frame import config_option, json_option, print_json
from rqsup.supervisor.ports import dial

#: Seconds until the answer: workers are asked at the same time, and given 0.2 s.
TIMEOUT_S = 10.0


@click.command()
@click.argument("pid", type=click.IntRange(min=1), required=False)
@config_option
@json_option
def stacks(pid: int | None, config: str | None, as_json: bool) -> None:
    """Show where the threads of all workers are, or of the worker PID; they go on meanwhile."""
    arguments = {} if pid is None else {"pid": pid}
    answer = dial.request(load(config).control.socket, "stacks", arguments, timeout_s=TIMEOUT_S)
    if as_json:
        print_json(answer)
        return
    for worker in answer["workers"]:
        job = f", {worker['task']} {worker['job_id']}" if worker["job_id"] else ""
        apart = f" in process {worker['job_pid']}" if worker["job_pid"] else ""
        click.echo(f"worker {worker['number']}, pid {worker['pid']}, {worker['state']}{job}{apart}")
        click.echo(f"{worker['stack'].strip()}\n")
    if not answer["workers"]:
        click.echo("no worker is running")
