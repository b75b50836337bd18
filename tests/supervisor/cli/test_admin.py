"""`rqsup admin`: what it prints, how it ends, and that it refuses what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from rqsup import Client, Request
from rqsup.store.server import LocalServer
from rqsup.supervisor.cli import admin_view
from rqsup.supervisor.cli.admin import admin
from rqsup.supervisor.cli.frame import ErrorGroup
from tests.rqsup.store.raw import Raw

ERROR = b'{"type": "ValueError", "message": "bad [red]address[/red]", "traceback": "Traceback: line 3", "host": "h1"}'

Run = Callable[..., Result]


@click.group(cls=ErrorGroup)
def main() -> None:
    """Stands for the whole command line: it turns errors into exit codes."""


main.add_command(admin)


@pytest.fixture
def raw(client: Client) -> Raw:
    raw = Raw(client)
    raw.register("w")
    return raw


@pytest.fixture
def run(client: Client) -> Run:
    environment = {
        "RQSUP_REDIS__URL": client.settings.redis.url, "RQSUP_NAMESPACE": client.keys.namespace, "COLUMNS": "80",
    }  # fmt: skip

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["admin", *arguments], env=environment)

    return run


def answer(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def bury(raw: Raw, job_id: str, task: str = "t") -> None:
    raw.client.send(Request(task, job_id=job_id, queue="q"))
    raw.settle(raw.claim().jobs[0], "bury", ERROR, 0)


def test_stats_show_queues_totals_workers_and_counters(raw: Raw, run: Run) -> None:
    raw.enqueue("a", queue="mail", level="high")
    bury(raw, "b")

    assert answer(run("stats", "--json"))["queues"][0]["ready"]["high"] == 1
    shown = run("stats").stdout
    for word in ("mail", "very high", "scheduled 0", "dead 1", "accepted 2", "working"):
        assert word in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_stats_of_an_empty_namespace_say_so(client: Client, run: Run) -> None:
    shown = run("stats").stdout

    assert "No queue" in shown
    assert "No worker" in shown


def test_stats_keys_list_keys(raw: Raw, run: Run) -> None:
    raw.enqueue("a")

    assert "ready:q:normal" in [row["key"] for row in answer(run("stats-keys", "--json"))["keys"]]
    assert "ready:q:normal" in run("stats-keys").stdout


def test_peek_shows_the_next_jobs(raw: Raw, run: Run) -> None:
    for number in range(3):
        raw.client.send(Request("mail.send", (f"to{number}",), queue="q", job_id=f"j{number}"))

    assert [job["id"] for job in answer(run("peek", "q", "-n", "2", "--json"))["jobs"]] == ["j0", "j1"]
    shown = run("peek", "q").stdout
    assert "mail.send" in shown
    assert '"to2"' in shown
    assert "holds no ready job" in run("peek", "empty").stdout


def test_ids_are_shown_whole_on_one_line(client: Client, run: Run) -> None:
    job = client.enqueue("mail.send", "hello " * 50)

    assert job.id in run("peek", "default").stdout


@pytest.mark.parametrize("name", ["bad name", "", "a/b", "ä", "x" * 129])
def test_a_queue_name_outside_the_alphabet_is_refused_in_words(client: Client, run: Run, name: str) -> None:
    result = run("peek", name)

    assert result.exit_code == 1
    assert "queue name" in result.stderr
    assert "use 1 to 128 of" in result.stderr


def test_dead_letters_are_listed_and_shown(raw: Raw, run: Run) -> None:
    assert "No dead letters" in run("dlq", "list").stdout
    bury(raw, "a", task="mail.send")

    assert answer(run("dlq", "list", "--json"))["letters"][0]["error_type"] == "ValueError"
    assert "mail.send" in run("dlq", "list").stdout
    assert answer(run("dlq", "show", "a", "--json"))["traceback"] == "Traceback: line 3"
    shown = run("dlq", "show", "a").stdout
    assert "Traceback: line 3" in shown
    assert "bad [red]address[/red]" in shown


def test_an_unknown_letter_is_told(raw: Raw, run: Run) -> None:
    result = run("dlq", "show", "nope")

    assert result.exit_code == 1
    assert "not among the dead letters" in result.stderr


def test_letters_are_replayed_by_id_and_by_task(raw: Raw, run: Run) -> None:
    for job_id, task in (("a", "one"), ("b", "two"), ("c", "one")):
        bury(raw, job_id, task)

    assert answer(run("dlq", "replay", "a", "--json"))["replayed"] == ["a"]
    assert "1 job(s)" in run("dlq", "replay", "--all", "--task", "one").stdout
    assert set(raw.ready()) == {"a", "c"}


def test_a_replay_that_leaves_a_letter_behind_says_why_and_fails(raw: Raw, run: Run) -> None:
    bury(raw, "a")
    raw.redis.zadd(raw.keys.dead, {"ghost": 1})
    raw.spoil(raw.keys.ready("q:normal"))

    result = run("dlq", "replay", "a", "ghost", "nope")

    assert result.exit_code == 1
    for words in ("'a': kept, Redis refused", "'ghost': kept, there is no record", "'nope': not among"):
        assert words in result.stderr


@pytest.mark.parametrize("arguments", [["dlq", "replay"], ["dlq", "replay", "a", "--all"], ["purge-dlq"], ["peek"]])
def test_a_command_that_is_not_clear_is_refused_as_wrong_usage(raw: Raw, run: Run, arguments: list[str]) -> None:
    bury(raw, "a")

    assert run(*arguments).exit_code == 2
    assert raw.dead() == ["a"]


def test_purge_deletes_the_letters_when_told_twice(raw: Raw, run: Run) -> None:
    bury(raw, "a")
    assert answer(run("purge-dlq", "--yes", "--json")) == {"deleted": 1}
    bury(raw, "b")
    assert "1 dead letter(s) deleted" in run("purge-dlq", "--yes").stdout
    assert raw.dead() == []


def test_check_ends_with_0_when_clean(raw: Raw, run: Run) -> None:
    raw.enqueue("a")

    assert answer(run("check", "--json"))["faults"] == []
    assert "every job is in exactly one place" in run("check").stdout


def test_check_ends_with_1_and_names_the_fault(raw: Raw, run: Run) -> None:
    raw.redis.lpush(raw.keys.ready("q:normal"), b"\xff\x1b[31m")

    assert answer(run("check", "--json"), code=1)["faults"][0]["id"] == "\\xff\x1b[31m"
    result = run("check")
    assert result.exit_code == 1
    assert "without a readable record" in " ".join(result.stdout.split())
    assert "\x1b" not in result.stdout


def test_check_says_what_it_could_not_see(raw: Raw, run: Run, client: Client) -> None:
    raw.redis.acl_setuser(
        "noscan", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-scan"]
    )
    result = CliRunner().invoke(
        main,
        ["admin", "check"],
        env={
            "RQSUP_REDIS__URL": client.settings.redis.url,
            "RQSUP_REDIS__USERNAME": "noscan",
            "RQSUP_NAMESPACE": "none",
        },
    )
    raw.redis.acl_deluser("noscan")

    assert result.exit_code == 0
    assert "Not checked: this Redis user may not SCAN" in result.stdout


def test_a_job_is_shown(raw: Raw, run: Run) -> None:
    raw.client.send(Request("mail.send", ("x",), queue="q", job_id="a"))
    raw.settle(raw.claim().jobs[0], "succeed", b'{"n": 1}')

    shown = answer(run("job", "show", "a", "--json"))
    assert (shown["state"], shown["result"], shown["envelope"]["args"]) == ("succeeded", {"n": 1}, ["x"])
    assert "succeeded" in run("job", "show", "a").stdout


def test_a_jobs_counters_are_shown_apart_and_its_stack_below_in_full(raw: Raw, run: Run) -> None:
    raw.enqueue("a")
    raw.claim()
    stack = 'Current thread 0x1 (most recent call first):\\n  File "[shop].py", line 3 in send'
    raw.recover(
        charged="a", evidence=b'{"message": "segmentation fault", "stack": "%s"}' % stack.replace('"', '\\"').encode()
    )

    shown = run("job", "show", "a").output

    rows = [line.split() for line in shown.splitlines()]
    assert all(row in rows for row in (["errors", "0"], ["crashes", "1"], ["returns", "0"]))
    assert shown.endswith('(most recent call first):\n  File "[shop].py", line 3 in send\n')
    assert "segmentation fault" in shown


def test_a_job_with_an_unreadable_payload_is_shown(raw: Raw, run: Run) -> None:
    raw.enqueue("a")
    raw.redis.hset(raw.keys.job("a"), "envelope", b"\xff{")

    assert answer(run("job", "show", "a", "--json"))["envelope"] == "\\xff{"
    assert "\\xff{" in run("job", "show", "a").stdout


def test_a_job_is_cancelled(raw: Raw, run: Run) -> None:
    raw.enqueue("a")
    raw.enqueue("b")

    assert answer(run("job", "cancel", "a", "--json")) == {"id": "a", "state": "cancelled"}
    assert "cancelled" in run("job", "cancel", "b").stdout
    assert raw.ready() == []


@pytest.mark.parametrize("command", ["show", "cancel"])
def test_an_unknown_job_is_told(client: Client, run: Run, command: str) -> None:
    result = run("job", command, "nope")

    assert result.exit_code == 1
    assert "no job nope" in result.stderr


def test_a_running_job_is_not_cancelled(raw: Raw, run: Run) -> None:
    raw.enqueue("a")
    raw.claim()

    result = run("job", "cancel", "a")

    assert result.exit_code == 1
    assert "is active" in result.stderr


def test_without_redis_the_exit_code_says_so() -> None:
    result = CliRunner().invoke(main, ["admin", "stats"], env={"RQSUP_REDIS__URL": "unix:///nowhere/redis.sock"})

    assert result.exit_code == 69
    assert "does not answer" in result.stderr


def test_a_wrong_password_is_not_told_as_a_server_that_is_away(private_redis: LocalServer) -> None:
    Client(private_redis.url).store.client.config_set("requirepass", "right")

    result = CliRunner().invoke(main, ["admin", "stats"], env={"RQSUP_REDIS__URL": private_redis.url})

    assert result.exit_code == 69
    assert "refuses the login" in result.stderr
    assert "check redis.username and redis.password_file" in result.stderr


def test_a_dead_letters_reason_is_whole_on_a_narrow_screen(raw: Raw, run: Run) -> None:
    bury(raw, "0190b4c2-7f3e-7c1a-9b5e-2f4a6d8c0e11", task="mail.send.to.somebody")

    assert "    ValueError: bad [red]address[/red]\n" in run("dlq", "list").stdout


def test_a_key_of_a_wrong_type_is_an_error_in_words(raw: Raw, run: Run) -> None:
    raw.spoil(raw.keys.scheduled)

    result = run("stats")

    assert result.exit_code == 1
    assert "WRONGTYPE" in result.stderr
    assert "admin check" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.2, "0s"), (59, "59s"), (75, "1m 15s"), (7_260, "2h 1m"), (200_000, "2d")]
)
def test_ages_are_short(seconds: float | None, text: str) -> None:
    assert admin_view.age(seconds) == text


def test_a_time_outside_the_calendar_is_shown_as_its_number() -> None:
    assert admin_view.moment(10**18) == str(10**18)
