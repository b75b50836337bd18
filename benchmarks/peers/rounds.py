"""Interleaved rounds: every peer in turn, then all again, so that a slow hour of the machine hits them alike."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from benchmarks.figures import Tell
from benchmarks.peers.environments import CACHE
from benchmarks.peers.peer import Peer
from benchmarks.peers.pool import PeerFailed, Pool
from benchmarks.peers.promises import OURS
from benchmarks.peers.scenarios import PLAIN, SCENARIOS
from benchmarks.peers.scenarios.scale import Row, Scale
from benchmarks.peers.server import Server

#: Peers that are watched at the same time after a kill: they mostly wait.
TOGETHER = 6


def rounds(peers: Sequence[Peer], scenario: str, count: int, scale: Scale, tell: Tell) -> Iterator[Row]:
    """All rows of one scenario, as they come."""
    for number in range(1, 1 + count):
        if scenario == "recovery":
            yield from ({"round": number} | row for row in _watched(peers, scale, tell))
            continue
        for peer in peers:
            for row in _until_quiet(peer, scenario, scale, tell):
                yield {"peer": peer.name, "round": number} | row


def _until_quiet(peer: Peer, scenario: str, scale: Scale, tell: Tell) -> list[Row]:
    """A peer's turn; again if it was disturbed. All rows are kept, each with its mark."""
    rows: list[Row] = []
    for _ in range(1 + scale.repeats):
        latest = turn(peer, scenario, scale)
        rows += latest
        for row in latest:
            tell(f"{scenario}: {peer.name}: {told(row)}")
        if all(row.get("quiet", True) for row in latest):
            break
    return rows


def turn(peer: Peer, scenario: str, scale: Scale) -> list[Row]:
    """One measurement of one peer on a server of its own; what goes wrong is a row, too."""
    try:
        with (
            closing(Server(CACHE / "redis")) as server,
            closing(Pool(peer, server, tuned=scenario not in PLAIN, patience_s=scale.patience_s)) as pool,
        ):
            return SCENARIOS[scenario](pool, scale)
    except (PeerFailed, subprocess.TimeoutExpired) as fault:
        return [{"error": str(fault), "quiet": True}]


def _watched(peers: Sequence[Peer], scale: Scale, tell: Tell) -> Iterator[Row]:
    """A kill of each peer. Those that take seconds or minutes are watched together; rqsup takes milliseconds, and is alone."""
    alone = [peer for peer in peers if peer.name.startswith(OURS)]
    for group, together in ((alone, 1), ([peer for peer in peers if peer not in alone], TOGETHER)):
        with ThreadPoolExecutor(together) as threads:
            turns = threads.map(lambda peer: turn(peer, "recovery", scale), group)
            for peer, rows in zip(group, turns, strict=True):
                for row in rows:
                    tell(f"recovery: {peer.name}: {told(row)}")
                    yield {"peer": peer.name} | row


def told(row: Row) -> str:
    """A row in one line."""
    shown = {key: value for key, value in row.items() if not isinstance(value, list)}
    return "  ".join(
        f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )
