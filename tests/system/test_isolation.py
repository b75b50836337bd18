"""The three isolation levels against the same ten hostile handlers; docs/isolation.md shows the table."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rqsup import Client, Job, JobRecord, JobState
from tests.system.conftest import Start
from tests.system.daemon import Daemon, is_alive, stats
from tests.system.test_limits import rqsup
from tests.waiting import LOOK_PAUSE_S, wait_until

ROOT = Path(__file__).parents[2]
HANDLERS = (
    "segfault", "exit_hard", "hog_memory", "hog_interpreter", "be_deaf", "leave_thread", "fork_bomb", "leak",
    "read_shadow", "open_socket",
)  # fmt: skip
#: What may grow in a worker without being a leak: an idle one has a descriptor more, to wait with.
TOLERANCE = {"threads": 0, "descriptors": 5, "memory": 64 << 20}
LEVELS = ("inline", "fork", "sandbox")
WORKERS: dict[str, Any] = {"count": 1, "crash_limit": 1, "kill_grace": 0.3}
APART = pytest.mark.parametrize("level", ["fork", "sandbox"])


def documented() -> dict[tuple[str, str], str]:
    """The table of the page, by handler and level."""
    rows = re.findall(
        r"^\| `(\w+)`[^|]*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/isolation.md").read_text(), re.MULTILINE
    )
    return {(row[0], level): cell for row in rows for level, cell in zip(LEVELS, row[1:], strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_ten_hostile_handlers_end_as_the_page_says(
    start: Start, client: Client, assert_clean: Callable[[], None], level: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("what only root may read is no measure for another user")
    daemon = start(app=["hostile"], workers=WORKERS, sandbox={"data": 256 << 20, "require": ["landlock", "seccomp"]})

    expected = {key: cell for key, cell in documented().items() if key[1] == level}
    seen = {key: one_blow(daemon, client, f"{level}.{key[0]}", expected[key]) for key in expected}

    assert {key[0] for key in expected} == set(HANDLERS)
    assert seen == expected
    assert_clean()


def one_blow(daemon: Daemon, client: Client, name: str, expected: str) -> str:
    """How the job ended, and what it left behind: a cell of the table."""
    client.enqueue("inline.nothing").result(30)
    worker = psutil.Process(daemon.workers()[0]["pid"])
    before, family = look(worker), set(daemon.tree())
    record = wait_ended(client.enqueue(name))
    left = settled(lambda: what_is_left(daemon, worker, before, family), expected.partition("; ")[2])
    wait_until(lambda: daemon.is_ready(1), what="a ready worker")
    end_strangers(daemon, family)
    how = "succeeds"
    if record.crashes:
        cause = (record.crash or {})["message"]
        how = "hard timeout" if "hard timeout" in cause else "crash"
    elif record.error:
        how = record.error["type"]
    return f"{how}; {left}"


def settled(look: Callable[[], str], expected: str) -> str:
    """What is seen, as soon as it is as expected or a while has passed: the kernel may take a moment to clear up."""
    end = time.monotonic() + 10
    while (seen := look()) != expected and time.monotonic() < end:
        time.sleep(LOOK_PAUSE_S)
    return seen


def look(worker: psutil.Process) -> dict[str, int]:
    return {"threads": worker.num_threads(), "descriptors": worker.num_fds(), "memory": worker.memory_info().rss}


def what_is_left(daemon: Daemon, worker: psutil.Process, before: dict[str, int], family: set[int]) -> str:
    try:
        after = look(worker)
    except psutil.Error:  # gone, or a zombie
        return "its worker dies"
    if not is_alive(worker.pid):
        return "its worker dies"
    left = [name for name, value in after.items() if value > before[name] + TOLERANCE[name]]
    if set(daemon.tree()) - family:
        left.append("processes")
    return f"{', '.join(left)} stay" if left else "nothing stays"


def end_strangers(daemon: Daemon, family: set[int]) -> None:
    """End what an inline job left, before the next measures."""
    workers = {worker["pid"] for worker in daemon.workers()}
    for pid in set(daemon.tree()) - family - workers:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def wait_ended(job: Job) -> JobRecord:
    wait_until(
        lambda: job.refresh().state in {JobState.DEAD, JobState.SUCCEEDED},
        timeout_s=60,
        what=f"the end of {job.record}",
    )
    return job.record or pytest.fail("no record")


@APART
def test_a_job_apart_knows_its_job_and_runs_in_a_group_of_its_own(start: Start, client: Client, level: str) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "lease_ttl": 6})
    [worker] = daemon.workers()

    first, second = (client.enqueue(f"{level}.facts") for _ in range(2))

    seen, other = first.result(30), second.result(30)
    assert (seen["job"], seen["attempt"], seen["stopping"]) == (first.id, 1, False)
    assert (seen["parent"], seen["group"]) == (worker["pid"], seen["pid"])
    assert 0 < seen["lease"] <= 6
    assert seen["random"] != other["random"]
    assert seen["pid"] != other["pid"]
    assert client.enqueue(f"{level}.nap").result(30) == "awake"
    assert [one["pid"] for one in daemon.workers()] == [worker["pid"]]


@APART
def test_a_crash_is_charged_to_the_job_and_the_worker_lives_on(
    start: Start, client: Client, assert_clean: Callable[[], None], level: str
) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "crash_limit": 1})
    [worker] = daemon.workers()

    job = client.enqueue(f"{level}.segfault")

    record = wait_ended(job)
    assert (record.state, record.crashes, record.errors, record.returns) == (JobState.DEAD, 1, 0, 0)
    assert record.reason == "crash limit: its process died 1 times while running it"
    crash = record.crash or {}
    assert crash["message"] == "segmentation fault (SIGSEGV) in C code"
    assert crash["pid"] != worker["pid"]
    assert crash["worker"] == record.worker
    assert [one["pid"] for one in daemon.workers()] == [worker["pid"]]
    counters = daemon.status()["counters"]
    assert (counters["crashed"], counters["deaths"]) == (1, 0)
    assert stats(client)["crashed"] == 1
    assert_clean()


def test_a_job_that_crashed_runs_again_at_once_as_its_second_attempt(
    start: Start, client: Client, tmp_path: Path
) -> None:
    start(app=["hostile"], workers={"count": 2})

    assert client.enqueue("fork.crash_once", str(tmp_path / "flag")).result(30) == 2


@APART
def test_errors_timeouts_and_results_are_those_of_an_inline_job(start: Start, client: Client, level: str) -> None:
    start(app=["hostile"], workers={"count": 2}, limits={"result_bytes": 500_000})

    failed = wait_ended(client.enqueue(f"{level}.fail"))
    late = wait_ended(client.enqueue(f"{level}.loop_for_ever"))
    large = wait_ended(client.enqueue(f"{level}.huge", 500_000))

    assert (failed.errors, (failed.error or {})["type"]) == (2, "ValueError")
    assert 'raise ValueError("no such user")' in (failed.error or {})["traceback"]
    assert (late.error or {})["type"] == "JobTimeout"
    assert (large.error or {})["type"] == "ResultError"
    assert len(client.enqueue(f"{level}.huge", 400_000).result(30)) == 400_000


@APART
def test_a_job_apart_is_told_that_its_worker_shall_leave(start: Start, client: Client, level: str) -> None:
    daemon = start(app=["hostile"], workers={"count": 1, "drain_timeout": 20})
    job = client.enqueue(f"{level}.wait_for_stop")
    daemon.busy_worker()

    daemon.stop()

    assert job.refresh().state is JobState.SUCCEEDED


def test_what_a_job_apart_started_dies_with_its_worker(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(app=["hostile"], workers={"count": 1})
    note = tmp_path / "pid"
    client.enqueue("fork.leave_orphan", str(note))
    orphan = int(wait_until(lambda: note.exists() and note.read_text(), what="the process in the job's group"))
    worker = daemon.busy_worker()
    [job] = psutil.Process(worker["pid"]).children()

    os.kill(worker["pid"], signal.SIGKILL)

    wait_until(lambda: not is_alive(job.pid) and not is_alive(orphan), what="the end of the job and what it started")


def test_a_worker_with_a_stray_thread_is_replaced_and_the_job_runs_uncharged(start: Start, client: Client) -> None:
    daemon = start(app=["hostile"], workers={"count": 1})
    [worker] = daemon.workers()
    wait_ended(client.enqueue("inline.leave_thread"))

    job = client.enqueue("fork.facts")

    assert job.result(30)["attempt"] == 1
    assert job.refresh().record is not None
    assert (job.record or pytest.fail("no record")).crashes == 0
    assert [one["pid"] for one in daemon.workers()] != [worker["pid"]]
    assert "a job left 1 thread(s) in its worker (left)" in daemon.log_text()


def test_a_sandbox_holds_from_all_sides_and_leaves_room_to_work(start: Start, client: Client, tmp_path: Path) -> None:
    daemon = start(
        app=["hostile"], workers={"count": 1},
        sandbox={"fsize": 1 << 20, "require": ["landlock", "seccomp"]},
    )  # fmt: skip

    victim = make_victim(tmp_path)

    seen = client.enqueue("sandbox.try_all", str(tmp_path)).result(30)

    folder, user, interfaces = seen.pop("folder"), seen.pop("user"), seen.pop("network")
    assert seen == {
        "write outside": "PermissionError", "list outside": "PermissionError", "cut a file outside": "PermissionError",
        "chmod": "PermissionError", "read the environment of the worker": "PermissionError",
        "run a program": "PermissionError", "become a program": "PermissionError",
        "signal the worker": "Operation not permitted", "limit the worker": "PermissionError",
        "unix socket": "PermissionError", "capabilities": "0000000000000000", "descriptors": 6, "large file": "OSError",
        "own file": "done", "read a module": "done", "thread": "done",
    }  # fmt: skip
    # The six: three streams, the pipe for its answer, the box for its stacks, the log.
    assert user == os.getuid()
    if "network" not in daemon.log_text():
        assert interfaces == ["lo"]
    assert not Path(folder).exists()
    assert list(tmp_path.iterdir()) == [victim]
    assert victim.read_text() == "precious"


def make_victim(folder: Path) -> Path:
    """A file for a handler to harm."""
    victim = folder / "victim"
    victim.write_text("precious")
    return victim


def without(protection: str) -> list[str]:
    """A command that takes a protection of the kernel away from what it starts."""
    return [sys.executable, str(ROOT / "tests/system/without.py"), protection]


@pytest.mark.parametrize(
    ("protection", "why"),
    [
        ("landlock", "[Errno 38] Landlock: Function not implemented"),
        ("network", "[Errno 1] unshare(CLONE_NEWNET): Operation not permitted"),
        ("seccomp", "the kernel refused the filter"),
    ],
)
def test_a_start_is_refused_where_a_demanded_protection_is_missing(start: Start, protection: str, why: str) -> None:
    daemon = start(
        launch_only=True, prefix=without(protection), app=["hostile"], sandbox={"require": ["landlock", protection]}
    )

    assert daemon.wait() == 78
    line = next(line for line in daemon.log_text().splitlines() if "sandbox.require demands" in line)
    assert f"sandbox.require demands what this machine does not give ({protection}: " in line
    assert why in line
    assert "run rqsup where it is given, or take the name out of sandbox.require" in line


@pytest.mark.parametrize("protection", ["no_new_privs", "rlimits"])
def test_a_start_is_refused_where_no_sandbox_can_be_built_at_all(start: Start, protection: str) -> None:
    daemon = start(launch_only=True, prefix=without(protection), app=["hostile"])

    assert daemon.wait() == 78
    assert f"no sandbox can be built on this machine ({protection}: " in daemon.log_text()


def test_a_start_is_refused_where_the_library_for_a_demanded_protection_is_missing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyseccomp.py").write_text("raise ImportError('no pyseccomp here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")

    daemon = start(launch_only=True, app=["hostile"], sandbox={"require": ["seccomp"]})

    assert daemon.wait() == 78
    assert "(seccomp: no pyseccomp here; install rqsup[sandbox] and the system's libseccomp2)" in daemon.log_text()


@pytest.mark.parametrize("protection", ["landlock", "network", "seccomp"])
def test_a_protection_that_is_missing_but_not_demanded_is_told_and_the_others_hold(
    start: Start, client: Client, tmp_path: Path, protection: str
) -> None:
    daemon = start(prefix=without(protection), app=["hostile"], workers={"count": 1})

    walls = {wall["name"]: wall for wall in daemon.status()["sandbox"]}
    assert [name for name, wall in walls.items() if not wall["in_force"]] == [protection]
    assert walls[protection]["detail"]
    assert f"{protection} MISSING (" in " ".join(rqsup(daemon, "status").split())
    assert "sandbox: a protection is missing on this machine" in daemon.log_text()
    victim = make_victim(tmp_path)
    seen = client.enqueue("sandbox.try_all", str(tmp_path)).result(30)
    assert seen["capabilities"] == "0000000000000000"
    assert (seen["cut a file outside"] == "PermissionError") == (protection != "landlock")
    assert (victim.read_text() == "precious") == (protection != "landlock")
    assert (seen["unix socket"] == "PermissionError") == (protection != "seccomp")


def test_status_tells_the_protections_in_force(start: Start) -> None:
    daemon = start(app=["hostile"], workers={"count": 1})

    walls = json.loads(rqsup(daemon, "status", "--json"))["sandbox"]

    assert [wall["name"] for wall in walls] == ["rlimits", "network", "no_new_privs", "landlock", "seccomp"]
    assert walls[0]["detail"].startswith("nproc=512 ")
    assert re.fullmatch(r"ABI \d+", walls[3]["detail"])
    shown = rqsup(daemon, "status")
    assert f"no_new_privs, landlock ({walls[3]['detail']}), seccomp" in " ".join(shown.split())


def test_status_tells_nothing_of_a_sandbox_that_no_task_asks_for(start: Start) -> None:
    daemon = start(workers={"count": 1})

    assert daemon.status()["sandbox"] == []
    assert "sandbox" not in rqsup(daemon, "status")
