"""A Redis server behind TLS, with certificates made for it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until


def make_authority(folder: Path, name: str) -> Path:
    """A self-made CA and a certificate of it for localhost; returns the CA's certificate."""
    ca, key = folder / f"{name}-ca.crt", folder / f"{name}-ca.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            # Python 3.13 demands of a CA what RFC 5280 does.
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-subj", f"/CN={name}", "-keyout", key, "-out", ca)  # fmt: skip
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")  # fmt: skip
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost")
    openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "2",
            "-extfile", names, "-out", folder / f"{name}.crt")  # fmt: skip
    return ca


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def serving(redis_binary: str) -> Iterator[tuple[int, Path, Path]]:
    """A server behind TLS: its port, its CA, and another CA."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to make certificates")
    folder = Path(tempfile.mkdtemp(prefix="rqsup-tls-"))
    ca, other, port = make_authority(folder, "right"), make_authority(folder, "wrong"), free_port()
    command = [redis_binary, "--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--save", "",
               "--tls-cert-file", folder / "right.crt", "--tls-key-file", folder / "right.key", "--tls-ca-cert-file", ca]  # fmt: skip
    server = subprocess.Popen([str(part) for part in command], cwd=folder, stdout=subprocess.PIPE)
    try:
        wait_until(lambda: server.poll() is not None or listens(port), what="the server behind TLS")
        if server.returncode is not None:
            pytest.skip(f"{redis_binary} is built without TLS")
        yield port, ca, other
    finally:
        server.kill()
        server.communicate()
        shutil.rmtree(folder)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
        return True
    return False
