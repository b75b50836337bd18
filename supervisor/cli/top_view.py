"""The picture of `rqsup top`: pools, queues, workers, fitted to any terminal from 80 columns by 24 lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rqsup.job import LEVEL_LABELS
from rqsup.logs import UNSAFE
from rqsup.supervisor.cli.status_view import JOB_ID_TAIL, STYLES, WIDE, duration
from rqsup.supervisor.cli.top_data import PoolRow, QueueRow, WorkerRow
from rqsup.supervisor.cli.top_screen import Screen

#: Most lines of pools and of queues; the workers get the rest.
POOLS_SHOWN, QUEUES_SHOWN = 6, 6
KEYS = "q quit  ↑↓ choose  Enter job  sort n:# a:age m:memory t:task r:rate s:state"
JOB_KEYS = "q quit  Esc back  ↑↓ scroll"
#: Heading of the column by which each order sorts.
SORTED_BY = {"number": "#", "job age": "for", "memory": "memory", "task": "task", "rate": "jobs/s", "state": "state"}


def list_frame(
    pools: Sequence[PoolRow], queues: Sequence[QueueRow], workers: Sequence[WorkerRow], screen: Screen, *, width: int,
    height: int | None,
) -> Group:  # fmt: skip
    """Pools, queues and workers; without a height (no terminal) all of them."""
    shown_pools = pools if height is None else pools[:POOLS_SHOWN]
    shown_queues = queues if height is None else queues[:QUEUES_SHOWN]
    parts: list[RenderableType] = [_pools(shown_pools), Text(), _queues(shown_queues, len(queues), pools), Text()]
    # Three headings, two empty lines, the line below the queues, and the keys.
    faulty = any(row.look.fault for row in shown_pools)
    taken = len(shown_pools) + max(1, len(shown_queues)) + 7 + faulty
    first, last, room = 0, len(workers), len(workers)
    if height is not None:
        room = max(1, height - taken)
        first = min(max(0, screen.chosen - room // 2), max(0, len(workers) - room))
        last = first + room
    parts.append(_workers(workers[first:last], screen, first, wide=width >= WIDE, live=height is not None))
    if height is not None:
        # At the bottom, where it does not jump about.
        parts += [Text()] * (height - taken - min(room, len(workers)))
        parts.append(_footer(screen, width))
    return Group(*parts)


def job_frame(title: str, lines: Sequence[str], screen: Screen, *, width: int, height: int) -> Group:
    """One job's record, from the line that the operator has scrolled to."""
    room = max(1, height - 2)
    first = min(screen.scroll, max(0, len(lines) - room))
    body = [Text(line[:width], no_wrap=True) for line in lines[first : first + room]]
    blank = [Text()] * (room - len(body))
    more = f"  line {first + 1} of {len(lines)}" if len(lines) > room else ""
    return Group(Text(title[:width], "bold"), *body, *blank, Text((JOB_KEYS + more)[:width].ljust(width), "reverse"))


def _pools(rows: Sequence[PoolRow]) -> Table:
    table = _table(("pool", ""), ("state", ""), ("ready", ">"), ("busy", ">"), ("gen", ">"), ("jobs/s", ">"),
                   ("fails/s", ">"), ("deaths", ">"), ("up", ">"))  # fmt: skip
    for row in rows:
        snapshot = row.look.snapshot
        if snapshot is None:
            # Why stands in the caption: in a cell it would push the numbers out.
            table.add_row(row.look.pool, Text("no answer", "bold red"))
            continue
        state = Text(snapshot.state, STYLES.get(snapshot.state, ""))
        if not snapshot.redis_ok:
            state.append(" Redis away", "bold red")
        table.add_row(
            snapshot.pool, state, f"{snapshot.ready}/{snapshot.target}", str(snapshot.busy), str(snapshot.generation),
            _rate(row.ended_per_s), _rate(row.failed_per_s), f"{snapshot.counters.get('deaths', 0):,}",
            duration(snapshot.uptime_s),
        )  # fmt: skip
    faults = [f"{row.look.pool}: {_plain(row.look.fault)}" for row in rows if row.look.fault]
    if faults:
        table.caption = Text(faults[0], "bold red", no_wrap=True, overflow="ellipsis", justify="left")
        table.caption_justify = "left"
        table.expand = True
    return table


def _queues(rows: Sequence[QueueRow], count: int, pools: Sequence[PoolRow]) -> Table:
    more = f" (of {count})" if count > len(rows) else ""
    table = _table((f"queue{more}", ""), ("ready", ">"), *((_short(label), ">") for label in LEVEL_LABELS))
    for row in rows:
        levels = (f"{row.ready.get(label, 0):,}" if row.ready.get(label) else "·" for label in LEVEL_LABELS)
        table.add_row(row.name, Text(f"{row.total:,}", "bold" if row.total else ""), *levels)
    if not rows:
        known = any(pool.look.ready is not None for pool in pools)
        table.add_row("none" if known else "not known: Redis or the master does not answer")
    waiting = {pool.look.snapshot.namespace: pool.look for pool in pools if pool.look.snapshot}
    scheduled, dead = (sum(getattr(look, name) or 0 for look in waiting.values()) for name in ("scheduled", "dead"))
    table.caption = (
        f"scheduled {scheduled:,}, dead {dead:,}" if any(look.dead is not None for look in waiting.values()) else " "
    )
    table.caption_justify = "left"
    return table


def _workers(rows: Sequence[WorkerRow], screen: Screen, first: int, *, wide: bool, live: bool) -> Table:
    several = len({row.index for row in rows}) > 1
    heads = [("#", ">"), ("pid", ">"), ("gen", ">"), ("state", ""), ("task", ""), ("job", ""), ("for", ">"),
             ("jobs/s", ">"), ("memory", ">")]  # fmt: skip
    arrow = {SORTED_BY[screen.order]: "▲" if screen.reverse else "▼"}
    heads = [(name + arrow.get(name, ""), kind) for name, kind in heads]
    table = _table(*([("pool", "")] if several else []), *heads)
    for offset, row in enumerate(rows):
        worker = row.worker
        chosen = live and first + offset == screen.chosen
        job = worker.job_id or "-" if worker.jobs <= 1 else f"{worker.jobs} jobs"
        cells = [
            Text(str(worker.number)), Text(str(worker.pid or "-")), Text(str(worker.generation)),
            Text(worker.state, "" if chosen else STYLES.get(worker.state, "")), Text(worker.task or "-"),
            Text(job if wide or len(job) <= JOB_ID_TAIL else f"…{job[-JOB_ID_TAIL:]}"),
            Text("-" if worker.job_age_s is None else duration(worker.job_age_s)), Text(_rate(row.per_s)),
            Text(_size(worker.memory_bytes)),
        ]  # fmt: skip
        table.add_row(*([Text(row.pool)] if several else []), *cells, style="reverse" if chosen else "")
    return table


def _footer(screen: Screen, width: int) -> Text:
    typed = f"  worker {screen.digits}" if screen.digits else ""
    return Text(f"{KEYS}{typed}"[:width].ljust(width), "reverse", no_wrap=True)


def _table(*heads: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, kind in heads:
        # On a narrow terminal these give way, never the numbers.
        soft = name.rstrip("▲▼") in {"task", "pool"} or name.startswith("queue")
        justify, overflow = ("right" if kind == ">" else "left"), ("ellipsis" if soft else "fold")
        table.add_column(name, justify=justify, overflow=overflow, no_wrap=not soft)  # type: ignore[arg-type]  # rich's own literals
    return table


def _rate(per_s: float | None) -> str:
    if per_s is None:
        return "-"
    return f"{per_s:,.0f}" if per_s >= 10 or per_s == 0 else f"{per_s:.1f}"


def _size(count: int) -> str:
    if not count:
        return "-"
    return f"{count / 2**20:.1f}M" if count < 2**30 else f"{count / 2**30:.1f}G"


def _short(label: str) -> str:
    return label.replace("very_", "v.")


def _plain(text: str) -> str:
    return UNSAFE.sub(" ", text)
