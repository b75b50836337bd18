"""A buffer in front of a client: `enqueue` returns at once, a thread sends the jobs in chunks.

What is in the buffer is not accepted yet: a crash of this process loses it. `flush()` waits until all of it
is accepted, and leaving the `with` block does so, too.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import msgspec

from rqsup.errors import BufferFull, EnqueueError, JobsRefused, RedisUnavailable, Refusal
from rqsup.job import Job, JobSource
from rqsup.request import CHUNK, CHUNK_BYTES, Request
from rqsup.sending import Sending
from rqsup.task import Task

#: First and longest pause before a chunk that Redis did not answer is sent again, seconds.
RESEND_PAUSE_S, RESEND_CAP_S = 0.05, 1.0


class Buffer:
    """Jobs on their way to Redis. Safe to share between threads; a forked child starts with an empty one.

    1. `enqueue` checks the job, puts it in, and waits only when the buffer is full.
    2. A chunk leaves when it is full, or `max_delay_s` after its first job came.
    3. A chunk that Redis did not answer is sent again with the same ids until it is: none is lost or doubled.
    4. A job that Redis refuses is told by the next `flush()`, or by an `enqueue` that finds no room.

    Args:
        max_jobs: jobs in it, refused ones that are not told yet included, before `enqueue` waits.
        max_bytes: the same in bytes.
        max_delay_s: longest time that a job waits for others to be sent with, seconds.
        patience_s: for how long `flush()` and `close()` bear that Redis does not answer, seconds.

    Raises:
        ValueError: no job would ever find room, or a time is negative.
    """

    def __init__(
        self,
        client: JobSource,
        prepare: Callable[[Request], Sending],
        deliver: Callable[[Iterator[Sending]], list[tuple[Sending, Any]]],
        *,
        max_jobs: int,
        max_bytes: int,
        max_delay_s: float,
        patience_s: float,
    ) -> None:
        # Checked here: the first `enqueue` would wait for ever for room that cannot come.
        for name, value in (("max_jobs", max_jobs), ("max_bytes", max_bytes)):
            if not value >= 1:
                raise ValueError(f"{name} of a buffer must be 1 or more, not {value}")
        for name, seconds in (("max_delay_s", max_delay_s), ("patience_s", patience_s)):
            if not seconds >= 0:  # NaN, too, with which its thread would never wait
                raise ValueError(f"{name} of a buffer must be 0 s or more, not {seconds}")
        self._client = client
        self._prepare = prepare
        self._deliver = deliver
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._max_delay_s = max_delay_s
        self._patience_s = patience_s
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        #: Jobs not accepted yet, oldest first. The thread takes out only those that were answered.
        self._jobs: deque[Sending] = deque()
        self._bytes = 0
        self._first_at = 0.0
        self._refused: list[Refusal] = []
        self._thread: threading.Thread | None = None
        self._hurry = self._closing = False
        #: Jobs ever put in and ever answered: what `flush` waits for.
        self._put = self._answered = 0
        #: Why and since when Redis does not answer; None while it does.
        self._fault: RedisUnavailable | None = None
        self._fault_since = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Jobs in it that are not accepted yet."""
        return len(self._jobs)

    def enqueue(self, task: Task[..., Any] | str, /, *args: Any, **kwargs: Any) -> Job:
        """Put one job in; it waits for room as long as that takes. Its id is known at once, its acceptance is not.

        Raises:
            InvalidJob, PayloadTooLarge: it cannot become a job.
            JobsRefused: there is no room, and earlier jobs were refused; this one was not taken.
        """
        return self.send(Request(task, args, kwargs))

    def send(self, request: Request, *, timeout: float | None = None) -> Job:
        """Put one job with its options in. Raises as `enqueue`, and BufferFull.

        Args:
            timeout: longest wait for room, seconds; None waits for ever.
        """
        sending = self._prepare(request)
        self._check_fork()
        with self._changed:
            if not self._has_room():
                self._await_room(timeout)
            if not self._jobs:
                self._first_at = time.monotonic()
            self._jobs.append(sending)
            self._bytes += sending.size
            self._put += 1
            if self._thread is None:
                self._start()
            # Not for each job: waking the thread costs more than all the rest.
            if len(self._jobs) == 1 or len(self._jobs) % CHUNK == 0 or self._bytes >= CHUNK_BYTES:
                self._changed.notify_all()
        return Job(sending.job_id, self._client)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until Redis has answered for every job that is in the buffer now.

        Args:
            timeout: longest wait, seconds; None = as long as Redis answers.

        Raises:
            JobsRefused: some are not accepted; each is told once.
            RedisUnavailable: Redis has not answered for `patience_s`, or the time is up. The jobs stay in the
                buffer, and are sent when it answers again.
        """
        self._check_fork()
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            wanted = self._put
            if self._answered < wanted and self._thread is None:
                # A fault that nobody foresaw ended it.
                self._start()
            while self._answered < wanted:
                self._hurry = True
                self._changed.notify_all()
                self._changed.wait(self._bear(deadline))
            if self._refused:
                raise self._tell()

    def close(self) -> None:
        """Flush, and end the thread. The buffer may be used again.

        Raises:
            JobsRefused: jobs are not accepted: Redis refused them, or did not answer for `patience_s`; of these,
                it is unknown whether they were accepted, and sending them again with their ids is safe.
        """
        self._check_fork()
        thread = self._thread
        try:
            self.flush()
        except RedisUnavailable as fault:
            raise self._give_up(fault) from fault
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            if thread is not None:
                thread.join()
            with self._changed:
                # Unless another thread put a job in meanwhile.
                if self._thread is None:
                    atexit.unregister(self.close)

    def _has_room(self) -> bool:
        return len(self._jobs) + len(self._refused) < self._max_jobs and self._bytes < self._max_bytes

    def _await_room(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._has_room():
            if self._refused:
                raise self._tell()
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                reason = f"; {self._fault}" if self._fault else ""
                raise BufferFull(f"the buffer holds {len(self._jobs)} jobs: send later, or make it larger{reason}")
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait(left_s)

    def _bear(self, deadline: float | None) -> float | None:
        """Seconds for which to wait on; None without end. Raises when patience or time are over."""
        now = time.monotonic()
        ends = [] if deadline is None else [deadline]
        if self._fault is not None:
            ends.append(self._fault_since + self._patience_s)
        if self._thread is None or (ends and now >= min(ends)):
            raise RedisUnavailable(
                f"{len(self._jobs)} jobs are still in the buffer, and will be sent when Redis answers: "
                f"{self._fault or 'flush again, or give it more time'}"
            ) from self._fault
        return min(ends) - now if ends else None

    def _tell(self) -> JobsRefused:
        refused, self._refused = self._refused, []
        self._changed.notify_all()
        return JobsRefused(refused)

    def _give_up(self, fault: RedisUnavailable) -> JobsRefused:
        """Take out all that was not answered, so that the caller has it."""
        with self._changed:
            # What Redis said, where it is known: the fault of the flush promises to send them later, which ends here.
            cause = self._fault or fault
            left = [Refusal(sending.job_id, _named(sending), cause) for sending in self._jobs]
            self._refused += left
            self._answered += len(left)
            self._jobs.clear()
            self._bytes = 0
            return self._tell()

    def _check_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()  # the parent has the jobs, and the thread that sends them

    # The thread.

    def _start(self) -> None:
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="rqsup-buffer", daemon=True)
        self._thread.start()
        # A daemon, so that a forgotten buffer cannot keep the process; but its jobs are sent before the end.
        atexit.register(self.close)

    def _work(self) -> None:
        pause_s = RESEND_PAUSE_S
        try:
            while chunk := self._await_chunk():
                try:
                    answers = self._deliver(iter(chunk))
                except RedisUnavailable as fault:
                    self._note(fault, pause_s)
                    pause_s = min(2 * pause_s, RESEND_CAP_S)
                else:
                    pause_s = RESEND_PAUSE_S
                    self._settle(answers)
        finally:
            self._end()

    def _await_chunk(self) -> list[Sending]:
        """The next jobs to send, which stay in the buffer meanwhile; none = the end."""
        with self._changed:
            while True:
                if self._closing and self._fault is not None:
                    self._end()
                    return []
                if self._jobs:
                    wait_s = self._first_at + self._max_delay_s - time.monotonic()
                    full = len(self._jobs) >= CHUNK or self._bytes >= CHUNK_BYTES
                    if full or self._hurry or self._closing or wait_s <= 0:
                        return [self._jobs[number] for number in range(min(CHUNK, len(self._jobs)))]
                    self._changed.wait(wait_s)
                else:
                    self._hurry = False
                    if self._closing:
                        self._end()  # before the lock is free: whoever puts a job in starts another thread
                        return []
                    self._changed.wait()

    def _end(self) -> None:
        with self._changed:
            if self._thread is threading.current_thread():
                self._thread = None
            self._changed.notify_all()

    def _settle(self, answers: list[tuple[Sending, Any]]) -> None:
        """Take out the jobs that were answered."""
        with self._changed:
            self._fault = None
            for sending, answer in answers:
                if not self._jobs or self._jobs[0] is not sending:
                    break  # given up meanwhile
                try:
                    sending.check_accepted(answer)
                except RedisUnavailable as fault:
                    self._note(fault, RESEND_PAUSE_S)
                    break
                except EnqueueError as fault:
                    self._refused.append(Refusal(sending.job_id, _named(sending), fault))
                self._jobs.popleft()
                self._bytes -= sending.size
                self._answered += 1
            self._first_at = time.monotonic()
            self._changed.notify_all()

    def _note(self, fault: RedisUnavailable, pause_s: float) -> None:
        """Remember that Redis does not answer, and wait before the next try."""
        with self._changed:
            if self._fault is None:
                self._fault_since = time.monotonic()
            self._fault = fault
            self._changed.notify_all()
            # Whoever waits for room or in `flush` notifies whenever it is woken: that must not shorten the pause.
            self._changed.wait_for(lambda: self._closing, pause_s)


def _named(sending: Sending) -> Request:
    """The request, with the id that its job had."""
    return msgspec.structs.replace(sending.request, job_id=sending.job_id)
