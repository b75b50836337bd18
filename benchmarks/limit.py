"""The bare loop of the protocol: what Python and one Redis could do if rqsup did nothing else.

    python -m benchmarks.limit [--jobs 60000] [--processes 2] [--claim 64] [--settle each|batch]

So many processes claim by the product's own scripts, decode the JSON, mark the job, and settle it, over a plain socket with
hiredis to pack and parse: no prefetch that adapts, no timeout, no context, no scoreboard, no master. `each` sends a settle per
job before the next one starts, and reads the answers at the end of the batch; `batch` settles a whole batch in one command.
Both claim the next jobs in the same round trip as the last settle.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, cast

import hiredis
import msgspec
from redis.connection import parse_url

from benchmarks.drain import DRAIN_JOBS, Drained, drained, filled
from benchmarks.marks import Marks
from benchmarks.stage import NAMESPACE, positive, report
from rqsup.settings import WorkerSettings
from rqsup.store import scripts
from rqsup.store.keys import Keys, lanes
from rqsup.store.scripts import Call, Settlement, script

SettleWay = Literal["each", "batch"]
#: Most jobs taken at once; that of the product's prefetch.
CLAIM = 64
#: What a no-op job's settle says: its result, and for how long it is kept.
RESULT, KEPT_MS = b"null", int(1000 * WorkerSettings().result_ttl)
#: Stand-ins for a job's id and token in the pattern of a settle.
ID, TOKEN = b"<id>", -1


class BareSocket:
    """A connection without any layer: bytes out, replies in."""

    def __init__(self, url: str) -> None:
        place = cast(dict[str, Any], parse_url(url))
        if "path" in place:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(place["path"])
        else:
            self._socket = socket.create_connection((place["host"], place["port"]))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        self.send = self._socket.sendall

    def reply(self) -> Any:
        """The next reply."""
        gets = self._reader.gets
        while (reply := gets()) is False:
            data = self._socket.recv(1 << 16)
            if not data:
                sys.exit("Redis closed the connection of the bare loop")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            sys.exit(f"Redis answered the bare loop with an error: {reply}; have the scripts changed?")
        return reply


def pack(words: Iterable[Any]) -> bytes:
    """A command in the protocol of Redis."""
    return cast(bytes, hiredis.pack_command(cast(Any, tuple(words))))


class BareLoop:
    """One process of it."""

    def __init__(self, url: str, worker: str, marks: Marks, claim: int) -> None:
        self._socket = BareSocket(url)
        self._marks = marks
        keys, ways = Keys(NAMESPACE), lanes(WorkerSettings().queues)
        for name in ("claim", "settle", "heartbeat"):
            self._ask(("SCRIPT", "LOAD", script(name).source))
        # The registry's entry, without which a worker gets no jobs.
        self._ask(_words(scripts.heartbeat(keys.root, ttl_ms=3_600_000, details={worker: b"{}"})))
        self._claim = pack(_words(scripts.claim(
            keys.root, worker=worker, count=claim, lanes=ways, queues=WorkerSettings().queues, resume=False, wait=False,
        )))  # fmt: skip
        # The arguments of a settle are those that the product sends, with only id and token put in: one pattern for both.
        one = Settlement(ID.decode(), TOKEN, "succeed", RESULT, KEPT_MS)
        self._alone = _words(scripts.settle(keys.root, worker=worker, settlements=[]))
        self._claiming = _words(scripts.settle(keys.root, worker=worker, settlements=[], count=claim, lanes=ways))
        pattern = _words(scripts.settle(keys.root, worker=worker, settlements=[one]))[len(self._alone) :]
        self._before, self._after = pattern[: pattern.index(ID)], pattern[pattern.index(TOKEN) + 1 :]

    def _ask(self, words: Iterable[Any]) -> Any:
        self._socket.send(pack(words))
        return self._socket.reply()

    def first(self) -> list[Any]:
        """Claim the first jobs."""
        self._socket.send(self._claim)
        return cast(list[Any], self._socket.reply()[1])

    def run_each(self, jobs: list[Any]) -> list[Any]:
        """Run jobs, settle each before the next, and return those claimed with the last."""
        decode, start, send = msgspec.json.decode, self._marks.start, self._socket.send
        last = len(jobs) - 1
        for number, (job, token, _, _, envelope) in enumerate(jobs):
            start(decode(envelope)["args"][0]["user_id"])
            head = self._alone if number < last else self._claiming
            send(pack((*head, *self._before, job, token, *self._after)))
        for _ in range(last):
            self._socket.reply()
        return cast(list[Any], self._socket.reply()[1])

    def run_batch(self, jobs: list[Any]) -> list[Any]:
        """Run jobs, settle all of them in one command, and return those claimed with it."""
        decode, start = msgspec.json.decode, self._marks.start
        words = list(self._claiming)
        for job, token, _, _, envelope in jobs:
            start(decode(envelope)["args"][0]["user_id"])
            words += (*self._before, job, token, *self._after)
        self._socket.send(pack(words))
        return cast(list[Any], self._socket.reply()[1])


def _words(call: Call[Any]) -> tuple[Any, ...]:
    return call.command(flags=True)


def be_process(url: str, worker: str, marks: Path, settle: SettleWay, claim: int) -> None:
    """Be one of the processes: say that it is ready, wait for the start, and run until there are no jobs."""
    loop = BareLoop(url, worker, Marks(marks), claim)
    run: Callable[[list[Any]], list[Any]] = loop.run_each if settle == "each" else loop.run_batch
    print("ready", flush=True)
    sys.stdin.readline()
    jobs = loop.first()
    while jobs:
        jobs = run(jobs)


def measure(jobs: int = DRAIN_JOBS, *, processes: int = 2, claim: int = CLAIM, settle: SettleWay = "each") -> Drained:
    """Drain so many no-op jobs by the bare loop."""
    with filled(jobs) as scene:
        command = [sys.executable, "-m", "benchmarks.limit", "--settle", settle, "--claim", str(claim), "--be"]
        started = [
            subprocess.Popen(
                [*command, f"bare.{number}", scene.server.url, str(scene.path)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, cwd=Path(__file__).parents[1],
            )
            for number in range(processes)
        ]  # fmt: skip
        try:
            for process in started:
                if process.stdout is None or process.stdout.readline() != b"ready\n":
                    sys.exit("a process of the bare loop did not start: see its words above")
            result = drained(scene, jobs, [process.pid for process in started], begin=lambda: _go(started))
            for process in started:
                process.communicate(timeout=60)
        finally:
            for process in started:
                process.kill()
                process.wait()
        return result


def _go(started: list[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.stdin is not None:
            process.stdin.write(b"\n")
            process.stdin.flush()


def main(arguments: list[str]) -> int:
    """Run it and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit")
    parser.add_argument("--jobs", type=positive, default=DRAIN_JOBS)
    parser.add_argument("--processes", type=positive, default=2)
    parser.add_argument("--claim", type=positive, default=CLAIM)
    parser.add_argument("--settle", choices=("each", "batch"), default="each")
    parser.add_argument("--be", nargs=3, metavar=("WORKER", "URL", "MARKS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.be:
        worker, url, marks = options.be
        be_process(url, worker, Path(marks), options.settle, options.claim)
        return 0
    found = measure(options.jobs, processes=options.processes, claim=options.claim, settle=options.settle)
    figures = {"jobs": options.jobs, "claim": options.claim, "settle": options.settle, **found.to_json()}
    return report("limit", figures, kept=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
