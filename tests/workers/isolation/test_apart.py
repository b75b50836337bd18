"""What a job's process answers is not trusted."""

from __future__ import annotations

import pytest

from rqsup.workers.isolation.apart import Report, read_report


def test_a_report_is_read() -> None:
    report = read_report(b'{"outcome": "retry", "payload": {"type": "E", "attempt": 1}, "number": 5}')

    assert isinstance(report, Report)
    assert (report.outcome, bytes(report.payload), report.number) == ("retry", b'{"type": "E", "attempt": 1}', 5)


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"\x80\x05\x95",
        b"[]",
        b'{"outcome": "crash", "payload": {}, "number": 5}',
        b'{"outcome": "succeed", "payload": nonsense, "number": 5}',
        b'{"outcome": "succeed", "payload": 1, "number": -1}',
        b'{"outcome": "retry", "payload": {}, "number": 1000000000000000}',
        b'{"outcome": "bury", "payload": 1, "number": 0}',
        b'{"outcome": "bury", "payload": {"type": {"a": 1}}, "number": 0}',
        b'{"outcome": "succeed", "payload": ' + b"[" * 100_000 + b', "number": 5}',
    ],
)
def test_a_forged_report_is_none(forged: bytes) -> None:
    assert read_report(forged) is None
