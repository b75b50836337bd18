"""The demo's task reads real files, and no odd file can hold it."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from rqsup.examples.files import CHUNK_BYTES, digest


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_it_returns_path_size_and_digest(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    file = tmp_path / "file"
    file.write_bytes(data)

    assert digest(str(file)) == {"path": str(file), "bytes": size, "sha256": hashlib.sha256(data).hexdigest()}


def test_special_files_give_an_error_text_instead_of_hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")

        errors = {name: digest(name)["error"] for name in ("pipe", "socket", "link", "missing", ".", "/dev/zero")}

    assert "is not a regular file" in errors["pipe"]
    assert "No such device" in errors["socket"]
    assert "symbolic links" in errors["link"]
    assert "No such file" in errors["missing"]
    assert "is not a regular file" in errors["."]
    assert "is not a regular file" in errors["/dev/zero"]


def test_its_result_with_an_error_has_no_digest() -> None:
    assert digest("/missing") == {
        "path": "/missing", "bytes": 0, "sha256": None, "error": "[Errno 2] No such file or directory: '/missing'",
    }  # fmt: skip
