"""Tasks: functions that keep working as functions, found by name."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from rqsup import Backoff, Level, Task, task
from rqsup.errors import InvalidJob
from rqsup.task import find_task, task_names


def add(a: int, b: int = 1) -> int:
    return a + b


def other(a: int) -> int:
    return a


async def slow() -> None: ...


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test declares its tasks in an empty registry."""
    # By its module: the name `rqsup.task` is the decorator.
    monkeypatch.setattr(sys.modules["rqsup.task"], "_registry", {})


def test_a_task_is_still_the_function_that_it_was() -> None:
    declared = task(add)

    assert isinstance(declared, Task)
    assert declared(1, b=2) == 3
    assert declared.name == f"{add.__module__}.add"
    assert find_task(declared.name) is declared


def test_the_defaults_are_those_of_the_documentation() -> None:
    declared = task(add)

    assert (declared.queue, declared.level, declared.max_attempts, declared.timeout_s) == (
        "default",
        Level.NORMAL,
        5,
        None,
    )
    assert declared.backoff == Backoff()


def test_options_are_kept() -> None:
    backoff = Backoff(first_s=1)

    declared = task(name="mail.send", queue="mail", priority="high", max_attempts=2, timeout=30, backoff=backoff)(add)

    assert (declared.name, declared.queue, declared.level) == ("mail.send", "mail", Level.HIGH)
    assert (declared.max_attempts, declared.timeout_s, declared.backoff) == (2, 30, backoff)


def test_an_async_handler_is_known_as_one() -> None:
    assert task(slow).is_async
    assert not task(add).is_async


def test_declaring_the_same_function_again_replaces_it_as_a_reload_does() -> None:
    task(name="t")(add)
    again = task(name="t", queue="q")(add)

    assert find_task("t") is again


def test_two_functions_of_one_name_are_refused_with_both_origins() -> None:
    task(name="t")(add)

    with pytest.raises(ValueError, match=r"add and .*other; give one of them another name"):
        task(name="t")(other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_attempts": 0}, "max_attempts must be 1 or more"),
        ({"timeout": 0}, "timeout must be more than 0 s"),
        ({"timeout": -1}, "timeout must be more than 0 s"),
        ({"priority": "urgent"}, "unknown priority"),
        ({"isolation": "jail"}, "unknown isolation 'jail'; choose one of inline, fork, sandbox"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        task(name="t", **options)(add)

    assert task_names() == []


@pytest.mark.parametrize("options", [{"name": "bad name"}, {"name": "t", "queue": "a/b"}])
def test_names_outside_the_alphabet_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        task(**options)(add)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(InvalidJob, match="task name"):
        task(lambda: None)


def test_names_are_listed_in_order_and_unknown_ones_are_none() -> None:
    task(name="b")(add)
    task(name="a")(other)

    assert task_names() == ["a", "b"]
    assert find_task("none") is None
