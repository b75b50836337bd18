"""The alarm, with a real SIGALRM."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rqsup.errors import JobTimeout
from rqsup.workers import alarm as alarm_module
from rqsup.workers.alarm import Alarm
from tests.waiting import wait_until

ID = "01a20055-ba34-7233-a23c-e4102238162f"


def spin(seconds: float) -> None:
    """What a job does that never sleeps."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


def run(alarm: Alarm, timeout_s: float, job: Callable[[], object], postponed_s: float = 0) -> None:
    """A job under the alarm, which may ring at any line from its arming on."""
    alarm.arm("t", "id", timeout_s)
    if postponed_s:
        alarm.postpone(postponed_s)
    job()


def title() -> str:
    return Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode()


def test_a_loop_of_pure_python_is_stopped_at_its_timeout(alarm: Alarm) -> None:
    started = time.monotonic()

    with pytest.raises(JobTimeout, match=r"allowed are 0\.05 s"):
        run(alarm, 0.05, lambda: spin(60))

    assert time.monotonic() - started >= 0.05


def test_a_sleep_is_stopped_too(alarm: Alarm) -> None:
    with pytest.raises(JobTimeout):
        run(alarm, 0.05, lambda: time.sleep(60))


def test_a_timeout_that_was_swallowed_is_raised_again(alarm: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_module, "TITLE_S", 0.05)
    met = 0

    # Nothing but the loop between two rings: each may come at any line.
    while met < 3:
        try:
            if not met:
                alarm.arm("t", "id", 0.05)
            spin(60)
        except JobTimeout:
            met += 1
        else:
            pytest.fail(f"after {met} timeouts no other one came")


def test_nothing_is_raised_after_the_end_of_the_job(alarm: Alarm) -> None:
    alarm.arm("t", "id", 0.5)

    alarm.disarm()

    spin(0.6)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_ring_that_comes_too_late_is_ignored(alarm: Alarm) -> None:
    alarm.arm("t", "id", 60)
    alarm.disarm()

    signal.raise_signal(signal.SIGALRM)


def test_a_job_that_took_over_sigalrm_does_not_free_the_next_one_from_its_timeout(alarm: Alarm) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)

    with pytest.raises(JobTimeout):
        run(alarm, 0.02, lambda: spin(60))


def test_the_title_of_a_long_job_shows_task_short_id_and_age(alarm: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_module, "TITLE_S", 0.5)

    alarm.arm("mail.send", ID, 60)

    assert title() == "rqsup: worker 3 [mail] gen 2, busy"
    wait_until(lambda: "busy" not in title(), what="the title to be renewed")
    assert re.fullmatch(r"rqsup: worker 3 \[mail\] gen 2, mail\.send 01a20055…162f \d+s", title())
    alarm.disarm()
    alarm.show("idle")
    assert title() == "rqsup: worker 3 [mail] gen 2, idle"


def test_a_title_update_does_not_break_off_a_system_call_of_the_job(
    alarm: Alarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarm_module, "TITLE_S", 0.01)
    started = time.monotonic()
    alarm.arm("t", "id", 60)

    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(0.2); print('done', flush=True)"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        assert os.read(child.stdout.fileno(), 100).startswith(b"done")

    assert time.monotonic() - started >= 0.2


def test_a_gentle_end_holds_the_alarm_back_once(alarm: Alarm) -> None:
    started = time.monotonic()

    with pytest.raises(JobTimeout):
        run(alarm, 0.5, lambda: spin(60), postponed_s=1.0)

    assert time.monotonic() - started >= 1.0


def test_it_remembers_that_it_raised_whatever_the_job_made_of_it(alarm: Alarm) -> None:
    alarm.arm("t", "id", 60)
    alarm.disarm()
    assert not alarm.has_raised

    with contextlib.suppress(JobTimeout):
        run(alarm, 0.05, lambda: spin(60))
    alarm.disarm()

    assert alarm.has_raised


def test_a_process_that_a_job_forked_does_no_errand(alarm: Alarm) -> None:
    ours, theirs = os.pipe()

    def tell() -> bool:
        return os.write(theirs, b"!") > 0

    alarm.entrust(tell)
    child = os.fork()
    if child == 0:
        # As by a timer that it set itself: the handlers are inherited.
        alarm.run_errand()
        os._exit(0)

    os.waitpid(child, 0)
    os.close(theirs)
    assert os.read(ours, 9) == b""
    os.close(ours)
