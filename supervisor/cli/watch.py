"""`rqsup events` and `rqsup kill`: what happens in a master, and ending one job."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from rqsup.config import load
from rqsup.logs import UNSAFE
from rqsup.supervisor.cli.frame import config_option, json_option, print_json
from rqsup.supervisor.events import EVENTS_KEPT, Event, Missed
from rqsup.supervisor.ports import dial

#: Seconds for the master to kill a worker and give its job its new place.
KILL_TIMEOUT_S = 15.0


@click.command()
@config_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C or the master's end.")
@click.option(
    "-n",
    "last",
    type=click.IntRange(0, EVENTS_KEPT),
    default=20,
    show_default=True,
    help="Latest events to begin with.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def events(config: str | None, *, follow: bool, last: int, as_json: bool) -> None:
    """Show what happened in the master: workers that came and went, jobs returned, reloads, orders.

    With --follow, a reader that is too slow misses events, and is told how many.
    """

    def show(text: str) -> None:
        click.echo(text if as_json else describe(text))

    socket, arguments = load(config).control.socket, {"last": last, "follow": follow}
    try:
        dial.request(socket, "events", arguments, timeout_s=None if follow else KILL_TIMEOUT_S, on_progress=show)
    except KeyboardInterrupt:
        return  # the way to end it
    if follow:
        click.echo("the master has ended", err=True)


def describe(text: str) -> str:
    """One event as a line for people.

    >>> describe('{"missed": 3}')
    '         ... 3 events missed'
    """
    found: Any = msgspec.json.decode(text)
    if "missed" in found:
        return f"         ... {msgspec.convert(found, Missed).missed} events missed"
    event = msgspec.convert(found, Event)
    clock = time.strftime("%H:%M:%S", time.localtime(event.at))
    fields = " ".join(f"{name}={_value(value)}" for name, value in event.fields.items() if name != "pool")
    return f"{clock} {event.level:<7} {event.event}  {fields}".rstrip()


def _value(value: Any) -> str:
    text = UNSAFE.sub(" ", str(value))
    return f'"{text}"' if " " in text or not text else text


@click.command()
@config_option
@json_option
@click.option("--job", "job_id", required=True, metavar="ID", help="The job, which has to be running.")
@click.option("--requeue", is_flag=True, help="Put the job back into its queue instead of the dead letters.")
def kill(config: str | None, job_id: str, *, requeue: bool, as_json: bool) -> None:
    """Kill the worker that runs a job.

    The job goes to the dead letters with your name in the reason, and is not charged with a crash; jobs that the
    worker held besides go back to their queue, and another worker starts.
    """
    arguments = {"job": job_id, "requeue": requeue}
    answer = dial.request(load(config).control.socket, "kill", arguments, timeout_s=KILL_TIMEOUT_S)
    if as_json:
        print_json(answer)
        return
    became = {
        "dead": "the job is among the dead letters; `rqsup admin dlq replay` puts it back",
        "ready": "the job is back in its queue",
        "ended before": "the job had ended before",
    }.get(answer["became"], "Redis does not answer: the job gets its new place when it does")
    click.echo(f"killed worker {answer['worker']} (pid {answer['pid']}): {became}")
