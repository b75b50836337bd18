"""Commands that look into Redis and put things right there; they need no running master."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import msgspec

from rqsup.config import load
from rqsup.envelope import check_name
from rqsup.errors import JobNotFound, RqsupError
from rqsup.supervisor import exits
from rqsup.supervisor.cli.frame import config_option, console, json_option, print_json

if TYPE_CHECKING:
    from rqsup.client import Client


@click.group()
def admin() -> None:
    """Look into the queues, and put them right."""


@admin.group()
def dlq() -> None:
    """Dead letters: jobs that failed for good."""


@admin.group()
def job() -> None:
    """One job."""


@contextmanager
def opened(config: str | None) -> Iterator[Client]:
    """A client on the configured Redis; errors of Redis become rqsup's own."""
    from redis.exceptions import RedisError, ResponseError  # the master imports this package, and must stay small

    from rqsup.client import Client
    from rqsup.store.connection import UNAVAILABLE, no_answer

    with Client(settings=load(config)) as client:
        try:
            yield client
        except UNAVAILABLE as fault:
            raise no_answer(client.settings.redis, fault) from fault
        except ResponseError as fault:
            advice = (
                "`rqsup admin check` names keys of a wrong type" if "WRONGTYPE" in str(fault) else "check redis.url"
            )
            raise RqsupError(f"Redis refused: {fault}; {advice}") from fault
        except RedisError as fault:  # what listens there speaks something else
            raise no_answer(client.settings.redis, fault) from fault


def _print_json(value: Any) -> None:
    print_json(_printable(msgspec.to_builtins(value)))


def _printable(value: Any) -> Any:
    r"""The value with ids of foreign bytes written as `\xff`: JSON has no place for bytes that are no text."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list) else value


def _json_or_text(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "backslashreplace")


@admin.command()
@config_option
@json_option
def stats(config: str | None, as_json: bool) -> None:
    """Show queues, workers and counters."""
    from rqsup import inspect

    with opened(config) as client:
        numbers = inspect.stats(client.store, client.keys)
    if as_json:
        _print_json(numbers)
        return
    from rqsup.supervisor.cli import admin_view

    admin_view.show_stats(numbers, console())


@admin.command("stats-keys")
@config_option
@json_option
def stats_keys(config: str | None, as_json: bool) -> None:
    """Show the keys in Redis with their sizes."""
    from rqsup import inspect

    with opened(config) as client:
        rows = inspect.key_stats(client.store, client.keys)
    if as_json:
        _print_json({"keys": rows})
        return
    from rqsup.supervisor.cli import admin_view

    admin_view.show_keys(rows, console())


@admin.command()
@config_option
@json_option
@click.argument("queue")
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Jobs to show.")
def peek(config: str | None, as_json: bool, queue: str, count: int) -> None:
    """Show the next jobs of QUEUE in the order in which they will be taken."""
    from rqsup import inspect

    check_name("queue name", queue)
    with opened(config) as client:
        jobs = inspect.peek(client.store, client.keys, queue, count)
    if as_json:
        _print_json({"queue": queue, "jobs": jobs})
        return
    from rqsup.supervisor.cli import admin_view

    admin_view.show_peek(queue, jobs, console())


@dlq.command("list")
@config_option
@json_option
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Letters to show.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Newest letters to pass over.")
def dlq_list(config: str | None, as_json: bool, count: int, offset: int) -> None:
    """List dead letters, the newest first."""
    from rqsup import inspect

    with opened(config) as client:
        letters = inspect.dead_letters(client.store, client.keys, offset, count)
    if as_json:
        _print_json({"letters": letters})
        return
    from rqsup.supervisor.cli import admin_view

    admin_view.show_letters(letters, console())


@dlq.command("show")
@config_option
@json_option
@click.argument("job_id", metavar="ID")
def dlq_show(config: str | None, as_json: bool, job_id: str) -> None:
    """Show one dead letter with its traceback."""
    from rqsup import inspect

    with opened(config) as client:
        letter = inspect.find_letter(client.store, client.keys, job_id)
    if letter is None:
        raise JobNotFound(f"job {job_id} is not among the dead letters: see `rqsup admin dlq list`")
    if as_json:
        _print_json(letter)
        return
    from rqsup.supervisor.cli import admin_view

    admin_view.show_letter(letter, console())


@dlq.command("replay")
@config_option
@json_option
@click.argument("job_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are dead now.")
@click.option("--task", help="Only letters of this task.")
@click.pass_context
def dlq_replay(
    ctx: click.Context,
    /,
    config: str | None,
    as_json: bool,
    job_ids: tuple[str, ...],
    *,
    everything: bool,
    task: str | None,
) -> None:
    """Put dead letters back into their queues. Exit status 1 when one stayed."""
    from rqsup import inspect

    if everything == bool(job_ids):
        raise click.UsageError("name the letters by their ids, or give --all (which may be narrowed by --task)")
    with opened(config) as client:
        result = inspect.replay(client.store, client.keys, None if everything else job_ids, task)
    if as_json:
        _print_json(result)
    else:
        _tell_replayed(result)
    ctx.exit(exits.FAILURE if result.missing or result.unreadable or result.refused else exits.OK)


def _tell_replayed(result: Any) -> None:
    click.echo(f"{len(result.replayed)} job(s) put back into their queues")
    for job_id in result.missing:
        click.echo(f"{job_id!a}: not among the dead letters", err=True)
    for job_id in result.unreadable:
        click.echo(f"{job_id!a}: kept, there is no record to run", err=True)
    for job_id, fault in result.refused.items():
        click.echo(f"{job_id!a}: kept, Redis refused: {fault}", err=True)


@admin.command("purge-dlq")
@config_option
@json_option
@click.option("--yes", is_flag=True, help="Really delete them; there is no way back.")
def purge_dlq(config: str | None, as_json: bool, yes: bool) -> None:
    """Delete all dead letters with their records."""
    from rqsup import inspect

    if not yes:
        raise click.UsageError("this deletes all dead letters for good: give --yes if you mean it")
    with opened(config) as client:
        deleted = inspect.purge_dead(client.store, client.keys)
    if as_json:
        _print_json({"deleted": deleted})
    else:
        click.echo(f"{deleted} dead letter(s) deleted")


@admin.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, config: str | None, as_json: bool) -> None:
    """Check that every job is in exactly one place; the server may be busy.

    Exit status 0 when all is well, 1 when there are faults.
    """
    from rqsup import inspect

    with opened(config) as client:
        report = inspect.check(client.store, client.keys)
    if as_json:
        _print_json(report)
    else:
        from rqsup.supervisor.cli import admin_view

        admin_view.show_report(report, console())
    ctx.exit(exits.OK if report.clean else exits.FAILURE)


@job.command("show")
@config_option
@json_option
@click.argument("job_id", metavar="ID")
def job_show(config: str | None, as_json: bool, job_id: str) -> None:
    """Show what Redis holds of a job."""
    with opened(config) as client:
        record = client.record(job_id)
    if as_json:
        _print_json(
            {**asdict(record), "envelope": _json_or_text(record.envelope), "result": _json_or_text(record.result)}
        )
        return
    from rqsup.supervisor.cli import admin_view

    admin_view.show_job(record, console())


@job.command("cancel")
@config_option
@json_option
@click.argument("job_id", metavar="ID")
def job_cancel(config: str | None, as_json: bool, job_id: str) -> None:
    """Cancel a job that has not started."""
    with opened(config) as client:
        client.cancel(job_id)
    if as_json:
        _print_json({"id": job_id, "state": "cancelled"})
    else:
        click.echo(f"job {job_id} is cancelled")
