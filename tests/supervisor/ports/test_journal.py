"""Entries for journald, in its native protocol."""

from __future__ import annotations

import socket
from pathlib import Path

from rqsup.supervisor.ports.journal import Journal, encode


def test_fields_are_lines_and_a_value_with_breaks_has_its_length() -> None:
    assert encode({"MESSAGE": "a=b", "RQSUP_JOB": "1"}) == b"MESSAGE=a=b\nRQSUP_JOB=1\n"
    assert encode({"MESSAGE": "a\nb"}) == b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"


def test_an_entry_is_one_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        journal = Journal(path)

        assert journal.send({"MESSAGE": "hello"})

        assert listener.recv(100) == b"MESSAGE=hello\n"
        journal.close()


def test_a_journal_that_does_not_read_is_never_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        journal = Journal(path)

        sent = [journal.send({"MESSAGE": "x" * 1000}) for _ in range(2000)]

        assert sent[0]
        assert not sent[-1]
        journal.close()


def test_no_journal_is_an_answer_too(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "none"))

    assert not journal.send({"MESSAGE": "hello"})
    journal.close()
