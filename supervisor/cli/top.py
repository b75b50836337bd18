"""The live view of `rqsup top`: asks masters, draws, takes keys."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.live import Live

from rqsup.config import load
from rqsup.errors import RqsupError
from rqsup.settings import Settings
from rqsup.supervisor.cli import admin_view, top_view
from rqsup.supervisor.cli.admin import opened
from rqsup.supervisor.cli.keyboard import Keyboard
from rqsup.supervisor.cli.top_data import Look, WorkerRow, look, pool_rows, queue_rows, worker_rows
from rqsup.supervisor.cli.top_screen import Screen, press

#: Seconds that the view waits for a key before it looks whether there is something new to draw.
KEY_S = 0.1


class Top:
    """The live view: asks the masters in the background, so that keys work while one of them hangs."""

    def __init__(self, configs: Sequence[str | None], interval_s: float) -> None:
        self._configs = configs
        self._settings: list[Settings] = [load(config) for config in configs]
        self._interval_s = interval_s
        self._before: list[Look] = []
        self._now: list[Look] = []
        self._pool = ThreadPoolExecutor(len(configs) + 1, "rqsup-top")
        self._screen = Screen()
        self._job: tuple[str, Future[list[str]]] | None = None
        self._awaited: Future[list[str]] | None = None

    def once(self) -> list[Look]:
        """Look at all pools, twice a moment apart, so that there are rates."""
        self._take(self._ask())
        time.sleep(min(1.0, self._interval_s))
        self._take(self._ask())
        return self._now

    def frame(self, width: int, height: int | None) -> Any:
        """The picture of this moment."""
        rows = self._rows()
        screen = self._screen
        if screen.job_open and self._job is not None and height is not None:
            title, record = self._job
            lines = record.result() if record.done() else ["reading …"]
            return top_view.job_frame(title, lines, screen, width=width, height=height)
        pools, queues = pool_rows(self._before, self._now), queue_rows(self._now)
        return top_view.list_frame(pools, queues, rows, screen, width=width, height=height)

    def run(self, console: Console) -> None:
        """Show and take keys until `q`."""
        self.once()
        asked, due, fresh = None, 0.0, True
        with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
            while not self._screen.over:
                if asked is None and time.monotonic() >= due:
                    asked, due = self._pool.submit(self._ask), time.monotonic() + self._interval_s
                if asked is not None and asked.done():
                    self._take(asked.result())
                    asked, fresh = None, True
                if fresh or self._job_came():
                    live.update(self.frame(console.width, console.height), refresh=True)
                key = keyboard.read(KEY_S)
                if key:
                    self._press(key)
                fresh = bool(key)

    def close(self) -> None:
        """Wait for nothing: a master that hangs must not keep the terminal."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _job_came(self) -> bool:
        """True once, when the record that was asked for is there. Else nothing is drawn twice, for slow lines."""
        if self._awaited is None or not self._awaited.done():
            return False
        self._awaited = None
        return True

    def _press(self, key: str) -> None:
        rows = self._rows()
        was_open = self._screen.job_open
        self._screen = press(self._screen, key, [row.worker.number for row in rows])
        if self._screen.job_open and not was_open:
            row = rows[min(self._screen.chosen, len(rows) - 1)]
            title = f"worker {row.worker.number} of pool {row.pool}: job {row.worker.job_id or '(none)'}"
            self._awaited = self._pool.submit(self._read_job, row)
            self._job = (title, self._awaited)

    def _ask(self) -> list[Look]:
        return [look(settings) for settings in self._settings]

    def _take(self, looks: list[Look]) -> None:
        self._before, self._now = self._now, looks

    def _rows(self) -> list[WorkerRow]:
        return worker_rows(self._before, self._now, self._screen.order, reverse=self._screen.reverse)

    def _read_job(self, row: WorkerRow) -> list[str]:
        """What `rqsup admin job show` shows of the worker's job."""
        if row.worker.job_id is None:
            return ["This worker is in no job now."]
        text = io.StringIO()
        width = os.get_terminal_size(sys.stdout.fileno()).columns
        try:
            with opened(self._configs[row.index]) as client:
                admin_view.show_job(client.record(row.worker.job_id), Console(file=text, width=width))
        except RqsupError as fault:
            return str(fault).splitlines()
        return text.getvalue().splitlines()
