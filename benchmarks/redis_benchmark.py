"""What Redis itself can do, by its own tool: `redis-benchmark`, where it is found. `python -m benchmarks.redis_benchmark`

Two connections, 16 commands in a pipeline, and a script of three commands: the least that a claim and its settle could be.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

from benchmarks.drain import payload, scene
from benchmarks.stage import report
from rqsup.store.server import LocalServer

TOOL = "redis-benchmark"
SCRIPT = """
local id = redis.call('LMOVE', KEYS[1], KEYS[1], 'RIGHT', 'LEFT')
local data = redis.call('HGET', KEYS[2], id)
redis.call('HSET', KEYS[3], id, ARGV[1])
return {id, data}
"""
COMMANDS, CONNECTIONS, DEPTH, IDS = 200_000, 2, 16, 1_000


def found() -> bool:
    """True where the tool is installed."""
    return shutil.which(TOOL) is not None


def measure(commands: int = COMMANDS) -> float:
    """Scripts a second."""
    with scene(1) as place:
        redis = place.client.store.client
        ids = [f"{number:032x}" for number in range(IDS)]
        redis.rpush("ids", *ids)
        redis.hset("jobs", mapping={one: json.dumps(payload(0)) for one in ids})
        return _run(place.server, commands, str(redis.script_load(SCRIPT)))


def _run(server: LocalServer, commands: int, sha: str) -> float:
    command = [
        TOOL, "-s", server.url.removeprefix("unix://"), "-c", str(CONNECTIONS), "-P", str(DEPTH), "-n", str(commands), "-q",
        "EVALSHA", sha, "3", "ids", "jobs", "state", "active",
    ]  # fmt: skip
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return per_second(told)


def per_second(told: str) -> float:
    r"""The last rate in what the tool prints.

    >>> per_second("x: rps=12.0 (overall)\rx: 98765.43 requests per second, p50=0.1 msec")
    98765.43
    """
    rates = re.findall(r"([\d.]+) requests per second", told)
    if not rates:
        raise ValueError(f"{TOOL} told no rate: {told[-200:]!r}")
    return float(rates[-1])


if __name__ == "__main__":
    sys.exit(report("redis_benchmark", {"scripts_per_s": measure()}, kept=True))
