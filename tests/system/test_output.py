"""What jobs print, with whole masters: captured from all ways of printing, named, bounded, never in a job's way."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rqsup import Client, JobState
from tests.system.conftest import Start
from tests.system.daemon import Daemon
from tests.waiting import wait_until

JSON = {"format": "json", "level": "info"}


def printed(daemon: Daemon) -> list[dict[str, Any]]:
    """The captured lines in the daemon's log, each with its fields."""
    whole = daemon.log_text().rpartition("\n")[0]  # the last line may still be on its way
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("logger") == "job" and line["event"] == "output"]


def texts(daemon: Daemon) -> set[str]:
    return {line["text"] for line in printed(daemon)}


def test_all_ways_of_printing_reach_the_log_with_the_job(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1}, log=JSON)

    job = client.enqueue("probe.say_in_all_ways")
    job.result(30)

    ways = {"by python", "by stderr", "by stdio", "by descriptor", "by program", "by its stderr", "unfinished"}
    wait_until(lambda: ways <= texts(daemon), what="all lines")
    lines = printed(daemon)
    assert {line["text"] for line in lines} == ways
    assert {(line["job_id"], line["worker"], line["generation"]) for line in lines} == {(job.id, 1, 1)}
    assert {line["task"] for line in lines} == {"probe.say_in_all_ways"}


def test_lines_of_tiny_jobs_are_told_apart(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2}, log=JSON, output={"lines_per_s": 5000, "pool_lines_per_s": 5000})

    jobs = {client.enqueue("probe.say", f"line of {number}").id: f"line of {number}" for number in range(300)}

    wait_until(lambda: len(printed(daemon)) >= 300, 20, "all lines")
    assert {line["job_id"]: line["text"] for line in printed(daemon)} == jobs


@pytest.mark.parametrize("level", ["fork", "sandbox"])
def test_a_job_in_a_process_of_its_own_is_named_and_its_log_lines_arrive(
    start: Start, client: Client, level: str
) -> None:
    daemon = start(app=["probe", "hostile"], workers={"count": 1}, log=JSON)

    job = client.enqueue(f"apart.say_{level}")

    wait_until(lambda: client.record(job.id).state is JobState.DEAD, what="the job's end")
    wait_until(lambda: {"by python", "by descriptor"} <= texts(daemon), what="all lines")
    assert {line["job_id"] for line in printed(daemon)} == {job.id}
    wait_until(lambda: '"job buried"' in daemon.log_text(), what="the line that its process logged")


def test_lines_after_a_job_that_died_apart_are_not_taken_for_its_own(start: Start, client: Client) -> None:
    daemon = start(app=["probe", "hostile"], workers={"count": 1, "crash_limit": 1}, log=JSON)
    dead = client.enqueue("apart.say_and_die")
    wait_until(lambda: client.record(dead.id).state is JobState.DEAD, what="its death")

    job = client.enqueue("probe.say_in_all_ways")
    job.result(30)

    wait_until(lambda: {"before the end", "by program", "by descriptor"} <= texts(daemon), what="all lines")
    names = {line["text"]: line["job_id"] for line in printed(daemon)}
    assert names["before the end"] == dead.id
    assert {name for text, name in names.items() if text != "before the end"} == {job.id}


def test_what_a_job_prints_around_an_upgrade_is_told_by_the_new_program(
    start: Start, client: Client, tmp_path: Path
) -> None:
    daemon = start(workers={"count": 1}, log=JSON)
    job = client.enqueue("probe.say_around", str(tmp_path / "go"))
    wait_until(lambda: "before" in texts(daemon), what="the first line")

    upgraded = threading.Thread(target=daemon.ask, args=("upgrade",))
    upgraded.start()
    wait_until(lambda: daemon.status()["last_upgrade"], what="the new program")
    (tmp_path / "go").touch()

    assert job.result(30) == job.id
    upgraded.join(60)
    wait_until(lambda: {"begun and ended", "after"} <= texts(daemon), what="the lines after the upgrade")
    assert [(line["text"], line["job_id"]) for line in printed(daemon)] == [
        (text, job.id) for text in ("before", "begun and ended", "after")
    ]


@pytest.mark.slow
def test_a_flood_is_bounded_counted_and_holds_up_neither_job_nor_master(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 2}, log=JSON)
    other = client.enqueue("probe.nap", 0.1)

    began = time.monotonic()
    client.enqueue("probe.flood", 50).result(60)

    assert other.result(30)
    wait_until(lambda: "output dropped" in daemon.log_text(), what="the line about dropped lines")
    wait_until(lambda: sum(output_counters(daemon)) == 50 * 61_680, what="all lines to be counted")
    assert len(printed(daemon)) <= 200 * (time.monotonic() - began + 2)


def test_the_last_words_of_a_dying_worker_are_heard(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "crash_limit": 1}, log=JSON)

    job = client.enqueue("probe.say_and_fall")
    wait_until(lambda: job.refresh().state == "dead", what="the dead letter")

    wait_until(lambda: "last words" in texts(daemon), what="what it printed before")
    assert {line["job_id"] for line in printed(daemon)} == {job.id}
    # Its stack came through its black box, and is no line of output.
    assert not any("Segmentation fault" in text for text in texts(daemon))


def test_jobs_in_processes_of_their_own_are_heard_by_name_also_when_they_die(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1, "crash_limit": 1}, log=JSON)

    well = client.enqueue("probe.print_apart", "well")
    dying = client.enqueue("probe.print_apart", "dying", True)
    wait_until(lambda: dying.refresh().state == "dead", what="the dead letter")
    after = client.enqueue("probe.say_in_all_ways")
    wait_until(lambda: "by descriptor" in texts(daemon), what="the next job's lines")

    names = {line["text"]: line["job_id"] for line in printed(daemon)}
    assert (names["well"], names["dying"], names["by descriptor"]) == (well.id, dying.id, after.id)


@pytest.mark.slow
def test_a_job_that_prints_without_end_is_not_held_up_by_a_master_that_stands_still(
    start: Start, client: Client
) -> None:
    daemon = start(workers={"count": 1}, log=JSON)
    client.enqueue("probe.nap", 0).result(30)

    daemon.signal(signal.SIGSTOP)
    job = client.enqueue("probe.say", "patience", 200_000)
    assert job.result(120) == job.id
    daemon.signal(signal.SIGCONT)

    wait_until(lambda: {"patience 0", "patience 99"} <= texts(daemon), what="what the pipe held")
    # What it did not hold is told with the next job.
    client.enqueue("probe.say", "afterwards").result(30)
    wait_until(lambda: sum(output_counters(daemon)) == 200_001, what="all lines to be counted")


def output_counters(daemon: Daemon) -> tuple[int, int]:
    """Lines that passed, lines that were dropped."""
    counters = daemon.status()["counters"]
    return counters["output_lines"], counters["output_dropped"]


def test_not_captured_it_goes_where_the_masters_own_goes(start: Start, client: Client) -> None:
    daemon = start(workers={"count": 1}, log=JSON, output={"capture": False})

    client.enqueue("probe.say_in_all_ways", 0).result(30)

    wait_until(lambda: "\nby program\n" in daemon.log_text(), what="the bare line")
    assert printed(daemon) == []


def test_a_renamed_log_is_reopened_on_usr1_by_the_master_and_all_workers(
    start: Start, client: Client, tmp_path: Path
) -> None:
    log, old = tmp_path / "rqsup.log", tmp_path / "rqsup.log.1"
    daemon = start(workers={"count": 2}, log=JSON | {"file": str(log)})
    sleeper = client.enqueue("probe.until", str(tmp_path / "flag"))
    daemon.busy_worker()

    log.rename(old)
    daemon.signal(signal.SIGUSR1)

    wait_until(lambda: log.exists() and "logs reopened" in log.read_text(), what="the new file")
    (tmp_path / "flag").touch()
    assert sleeper.result(30)
    client.enqueue("probe.say", "afterwards").result(30)
    wait_until(lambda: "afterwards" in log.read_text(), what="a line in the new file")
    wait_until(lambda: not holders(daemon, old), what="nobody to hold the old file")
    assert "afterwards" not in old.read_text()


def holders(daemon: Daemon, path: Path) -> list[int]:
    """The master and the workers that have this file open."""
    pids = [daemon.pid, *(worker["pid"] for worker in daemon.workers())]
    return [pid for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir() if os.path.realpath(fd) == str(path)]
