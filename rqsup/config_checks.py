"""Faults of the configuration that no type shows, each with its key; `config.py` calls them. Pure."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from rqsup.envelope import NAME
from rqsup.job import LEVEL_LABELS
from rqsup.settings import AutoscaleSettings, Namespace, PressureSettings, RedisSettings, Settings, WorkerSettings

#: Most bytes of a Unix socket's path (sun_path without its closing zero).
SOCKET_PATH_BYTES = 107


def cross_check(settings: Settings) -> list[str]:
    """Faults that no type shows."""
    return [
        *_redis_faults(settings.redis),
        *_worker_faults(settings.workers),
        *_load_faults(settings.autoscale, settings.pressure),
        *_name_faults(settings),
        *_sandbox_faults(settings),
        *_socket_faults(settings.control.socket),
        *_log_faults(settings.log.file),
    ]


def client_faults(url: str | None, namespace: str | None) -> list[str]:
    """Faults of what the caller of a client gave; None = not given."""
    faults = [fault for fault in [_url_fault(url) if url is not None else None] if fault]
    if namespace is not None:
        try:
            msgspec.convert(namespace, Namespace)
        except msgspec.ValidationError:
            faults.append(f"namespace: found {namespace!r}; allowed is 1 to 64 of the characters A-Z a-z 0-9 _ . -")
    return faults


def _redis_faults(redis: RedisSettings) -> list[str]:
    faults = [fault for fault in [_url_fault(redis.url)] if fault]
    if redis.tls_key_file and not redis.tls_cert_file:
        faults.append("redis.tls_key_file: needs redis.tls_cert_file too")
    if not redis.url.startswith("rediss:"):
        faults += [
            f"redis.{option}: only has a meaning with a rediss:// URL"
            for option in ("tls_ca_file", "tls_cert_file", "tls_key_file")
            if getattr(redis, option)
        ]
    return faults


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"redis", "rediss", "unix"}:
            # The address is not repeated: what stands before the colon may be a password.
            return "redis.url: unknown scheme; use redis://, rediss:// or unix://"
        if parts.scheme == "unix" and not parts.path:
            return "redis.url: unix:// needs a path, as in unix:///run/redis/redis.sock"
        _ = parts.port  # raises when it is no number in 0 to 65535
        database = "" if parts.scheme == "unix" else unquote(parts.path).strip("/")
        if database and not database.isdecimal():
            return "redis.url: what follows the host and port must be a database number, as in redis://localhost:6379/0"
        if parse_qs(parts.query, keep_blank_values=True).keys() - {"db"}:
            # Not repeated either: it may be the rest of a password.
            return "redis.url: after the `?`, only db=NUMBER is known; write other options as keys under `redis:`"
    except ValueError:
        return "redis.url: cannot be read; write characters such as # / ? @ in the password as %23 %2F %3F %40"
    return None if parts.hostname or parts.scheme == "unix" else "redis.url: names no host"


def _worker_faults(workers: WorkerSettings) -> list[str]:
    faults = []
    if workers.restart_cap < workers.restart_pause:
        faults.append(
            f"workers.restart_cap: {workers.restart_cap:g} s is less than workers.restart_pause, {workers.restart_pause:g} s"
        )
    # The first death of their worker would bury jobs that only ran beside the one that caused it, or charge none, for ever.
    if workers.concurrency > 1 and workers.crash_limit < 2:
        faults.append(
            f"workers.concurrency: {workers.concurrency} jobs at once need a workers.crash_limit of 2 or more, not {workers.crash_limit}"
        )
    doubles = sorted({queue for queue in workers.queues if workers.queues.count(queue) > 1})
    if doubles:
        faults.append(f"workers.queues: names {', '.join(doubles)} twice")
    if 0 < workers.max_memory_hard < workers.max_memory:
        faults.append(
            f"workers.max_memory_hard: {workers.max_memory_hard} bytes are less than workers.max_memory, {workers.max_memory} bytes"
        )
    return faults


def _load_faults(autoscale: AutoscaleSettings, pressure: PressureSettings) -> list[str]:
    faults = []
    if autoscale.max < autoscale.min:
        faults.append(f"autoscale.max: {autoscale.max} is less than autoscale.min, {autoscale.min}")
    if 0 < pressure.high < pressure.low:
        faults.append(f"pressure.high: {pressure.high:g} % is less than pressure.low, {pressure.low:g} %")
    return faults


def _name_faults(settings: Settings) -> list[str]:
    faults = [
        f"app: {module!r} is no module name; write it as in `import`, for example shop.tasks"
        for module in settings.app
        if not all(part.isidentifier() for part in module.split("."))
    ]
    faults += [
        f"producer.levels: {glob!r} has the unknown priority {level!r}; choose one of {', '.join(LEVEL_LABELS)}"
        for glob, level in settings.producer.levels.items()
        if level not in LEVEL_LABELS
    ]
    if settings.producer.task and not NAME.fullmatch(settings.producer.task):
        faults.append(f"producer.task: {settings.producer.task!r} is no task name; use A-Z a-z 0-9 _ . : -")
    return faults


def _sandbox_faults(settings: Settings) -> list[str]:
    return [
        f"sandbox.{key}: {path!r} must be an absolute path"
        for key in ("read", "write")
        for path in getattr(settings.sandbox, key)
        if not path.startswith("/")
    ]


def _log_faults(path: str) -> list[str]:
    return [f"log.file: {path!r} must be an absolute path"] if path and not path.startswith("/") else []


def _socket_faults(path: str) -> list[str]:
    # The master and the commands may run in different directories.
    faults = [] if path.startswith("/") else [f"control.socket: {path!r} must be an absolute path"]
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        faults.append(f"control.socket: {path} has {length} bytes; a socket's path may have {SOCKET_PATH_BYTES}")
    return faults
