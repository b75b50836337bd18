"""Where Redis is, and how to log in: read from the settings without redis-py, whose import costs 10 MB."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from rqsup.errors import RedisUnavailable
from rqsup.redact import redact_url
from rqsup.settings import RedisSettings

if TYPE_CHECKING:
    import ssl

#: Port of a URL that names none.
PORT = 6379


@dataclass(frozen=True, slots=True)
class Address:
    """One server, one database, one login."""

    #: Path of the Unix socket; empty = over TCP.
    path: str
    host: str
    port: int
    tls: bool
    database: int
    username: str = field(repr=False)
    password: str | None = field(repr=False)

    def login(self) -> list[tuple[str, ...]]:
        """The commands that a new connection starts with."""
        commands: list[tuple[str, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", self.username, self.password) if self.username else ("AUTH", self.password))
        if self.database:
            commands.append(("SELECT", str(self.database)))
        return commands


def read_address(settings: RedisSettings) -> Address:
    """The address in `redis.url` with its login; the password file is read anew each time.

    Raises:
        RedisUnavailable: the URL says something that is not known here, or the password file cannot be read.
    """
    try:
        url = urlsplit(settings.url)
        port = url.port or PORT
    except ValueError:
        # Its words are a part of the URL: of the password, if that holds a / or a ? that should be written as %2F or %3F.
        raise RedisUnavailable(
            f"redis.url {redact_url(settings.url)} cannot be read: write / ? # and @ of a password as %2F %3F %23 and %40"
        ) from None
    options = {name: values[-1] for name, values in parse_qs(url.query).items()}
    database = options.pop("db", "") or ("" if url.scheme == "unix" else unquote(url.path).strip("/")) or "0"
    if url.scheme not in {"redis", "rediss", "unix"} or options or not database.isdecimal():
        raise RedisUnavailable(
            f"redis.url {redact_url(settings.url)} cannot be used: write redis://, rediss:// or unix://, a database as a "
            "number, and other options as settings under `redis:`"
        )
    return Address(
        path=unquote(url.path) if url.scheme == "unix" else "",
        host=unquote(url.hostname or "localhost"),
        port=port,
        tls=url.scheme == "rediss",
        database=int(database),
        username=unquote(url.username or "") or settings.username,
        password=unquote(url.password) if url.password else read_password(settings),
    )


def read_password(settings: RedisSettings) -> str | None:
    """The password from `password_file`, or None when there is none.

    Raises:
        RedisUnavailable: the file cannot be read.
    """
    if not settings.password_file:
        return None
    try:
        return Path(settings.password_file).read_text(encoding="utf-8").strip()
    except OSError as fault:
        raise RedisUnavailable(
            f"redis.password_file {settings.password_file} cannot be read ({fault.strerror}): give this user the right to"
        ) from fault


def make_tls(settings: RedisSettings) -> ssl.SSLContext:
    """The TLS context that `redis.tls_…` asks for.

    Raises:
        OSError: a file cannot be read, or holds no certificate.
    """
    import ssl  # 2 MB, which a worker without TLS need not hold

    context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_cert_file:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None)
    return context
