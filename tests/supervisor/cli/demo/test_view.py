"""Numbers in words, and names that cannot harm a terminal."""

from __future__ import annotations

import pytest

from rqsup.supervisor.cli.demo.view import duration, printable, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.6, "1 h 00 min"), (7320, "2 h 02 min")],
)
def test_time_is_told_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 1024**3, "5.0 GiB"),
        (3 * 1024**5, "3072.0 TiB"),
    ],
)
def test_bytes_are_told_in_words(count: int, words: str) -> None:
    assert size(count) == words


def test_control_characters_in_names_are_replaced() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed") == "a?[2Jb?c?d"
