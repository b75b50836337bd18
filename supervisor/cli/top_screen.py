"""What the keys of `rqsup top` do: a state, a key, the next state. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rqsup.supervisor.cli.top_data import ORDERS

UP, DOWN, PAGE_UP, PAGE_DOWN, ENTER, ESCAPE = "up", "down", "page up", "page down", "enter", "escape"
#: Lines that a page key moves.
PAGE = 10


@dataclass(frozen=True, slots=True)
class Screen:
    """Where the operator is."""

    order: str = "number"
    reverse: bool = False
    #: Index of the chosen worker among the lines.
    chosen: int = 0
    #: Digits typed so far: the number of a worker.
    digits: str = ""
    #: True while one job fills the screen, from this line on.
    job_open: bool = False
    scroll: int = 0
    over: bool = False


def press(screen: Screen, key: str, numbers: list[int]) -> Screen:
    """What a key makes of the screen; `numbers` are those of the workers, line by line."""
    if key == "q":
        return replace(screen, over=True)
    return _in_job(screen, key) if screen.job_open else _in_list(screen, key, numbers)


def _in_job(screen: Screen, key: str) -> Screen:
    steps = {UP: -1, "k": -1, DOWN: 1, "j": 1, PAGE_UP: -PAGE, PAGE_DOWN: PAGE, " ": PAGE}
    if key in {ESCAPE, ENTER, "b"}:
        return replace(screen, job_open=False, scroll=0)
    return replace(screen, scroll=max(0, screen.scroll + steps.get(key, 0)))


def _in_list(screen: Screen, key: str, numbers: list[int]) -> Screen:
    if key.isdecimal():
        digits = (screen.digits + key)[-4:]
        chosen = numbers.index(int(digits)) if int(digits) in numbers else screen.chosen
        return replace(screen, digits=digits, chosen=chosen)
    screen = replace(screen, digits="")
    if key in ORDERS:
        same = ORDERS[key] == screen.order
        return replace(screen, order=ORDERS[key], reverse=same and not screen.reverse)
    if key == ENTER and numbers:
        return replace(screen, job_open=True, scroll=0)
    steps = {UP: -1, "k": -1, DOWN: 1, "j": 1, PAGE_UP: -PAGE, PAGE_DOWN: PAGE}
    last = max(0, len(numbers) - 1)
    return replace(screen, chosen=min(last, max(0, screen.chosen + steps.get(key, 0))))
