"""The configuration: defaults, file, environment, and faults that an operator can act on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rqsup.config import changed_keys, load, show
from rqsup.errors import ConfigError
from rqsup.redact import redact_url
from rqsup.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rqsup.yaml"


def faults_of(path: Path | None = None, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return caught.value.faults


def test_without_file_and_environment_all_defaults_hold() -> None:
    settings = load(None, {})

    assert changed_keys(settings, {}) == []
    assert settings.redis.url == "redis://localhost:6379/0"
    assert settings.workers.count == 4


def test_a_file_sets_keys_and_leaves_the_others(file: Path) -> None:
    file.write_text("app: [shop.tasks]\nworkers: {count: 7, lease_ttl: 3}\n")

    settings = load(file, {})

    assert settings.app == ["shop.tasks"]
    assert (settings.workers.count, settings.workers.lease_ttl) == (7, 3.0)
    assert changed_keys(settings, {}) == ["app", "workers.count", "workers.lease_ttl"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "redis:\n", "{}"])
def test_an_empty_file_or_section_means_the_defaults(file: Path, text: str) -> None:
    file.write_text(text)

    assert load(file, {}) == load(None, {})


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("RQSUP_APP", "shop.tasks, mail", "app", ["shop.tasks", "mail"]),
        ("RQSUP_POOL", "blue", "pool", "blue"),
        ("RQSUP_WORKERS__COUNT", " 8 ", "workers.count", 8),
        ("RQSUP_WORKERS__LEASE_TTL", "2.5", "workers.lease_ttl", 2.5),
        ("RQSUP_WORKERS__QUEUES", "a,b", "workers.queues", ["a", "b"]),
        ("RQSUP_WORKERS__QUEUES", "[a, b]", "workers.queues", ["a", "b"]),
        ("RQSUP_WORKERS__QUEUES", "7", "workers.queues", ["7"]),
        ("RQSUP_WORKERS__PREFETCH", "auto", "workers.prefetch", "auto"),
        ("RQSUP_WORKERS__PREFETCH", "16", "workers.prefetch", 16),
        ("RQSUP_METRICS__ENABLED", "False", "metrics.enabled", False),
        ("RQSUP_METRICS__ENABLED", "off", "metrics.enabled", False),
        ("RQSUP_METRICS__ENABLED", "1", "metrics.enabled", True),
        ("RQSUP_PRODUCER__LEVELS", "{'*.pdf': high}", "producer.levels", {"*.pdf": "high"}),
        ("RQSUP_PRODUCER__LEVELS", "", "producer.levels", {}),
        ("RQSUP_PRODUCER__EXCLUDE", "", "producer.exclude", []),
        ("RQSUP_REDIS__USERNAME", "12", "redis.username", "12"),
        ("RQSUP_LOG__LEVEL", "debug", "log.level", "debug"),
    ],
)
def test_the_environment_overrides_a_setting_of_every_type(variable: str, text: str, key: str, value: object) -> None:
    settings = load(None, {variable: text})

    found: object = settings
    for step in key.split("."):
        found = getattr(found, step)
    assert found == value
    assert type(found) is type(value)


def test_the_environment_comes_before_the_file(file: Path) -> None:
    file.write_text("workers: {count: 7}\nredis:\n")

    settings = load(file, {"RQSUP_WORKERS__COUNT": "2", "RQSUP_REDIS__USERNAME": "app"})

    assert settings.workers.count == 2
    assert settings.redis.username == "app"


def test_variables_that_are_no_settings_are_left_alone() -> None:
    environ = {"RQSUP_CONFIG": "/etc/rqsup.yaml", "RQSUP_TEST_REDIS": "embedded", "HOME": "/root"}

    assert load(None, environ) == load(None, {})


def test_all_faults_are_reported_at_once_each_with_its_key(file: Path) -> None:
    file.write_text(
        "colour: red\napp: [shop/tasks.py]\nmetrics: {port: 70000}\nworkers: {count: many, queues: mail, restart_pause: 90}\n"
        "producer: {levels: {'*': urgent}, task: 'a b'}\n"
    )

    faults = faults_of(file, RQSUP_LOG__FORMAT="xml")

    assert [fault.split(":")[0] for fault in faults] == [
        "colour", "metrics.port", "workers.count", "workers.queues", "log.format (from RQSUP_LOG__FORMAT)",
        "workers.restart_cap", "app", "producer.levels", "producer.task",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("workers: {count: 0}", "workers.count: found 0; allowed is a whole number from 1 to 1000"),
        ("workers: {count: '4'}", "workers.count: found '4'; allowed is a whole number from 1 to 1000"),
        ("workers: {count: true}", "workers.count: found True; allowed is a whole number from 1 to 1000"),
        ("workers: {concurrency: 0}", "workers.concurrency: found 0; allowed is a whole number from 1 to 1000"),
        ("workers: {concurrency: 2, crash_limit: 1}", "workers.concurrency: 2 jobs at once need a workers.crash_limit of 2 or more, not 1"),
        ("workers: {crash_limit: 0}", "workers.crash_limit: found 0; allowed is a whole number, 1 or more"),
        ("workers: {reconnect_cap: 9}", "workers.reconnect_cap: found 9; allowed is a number more than 0, up to 4"),
        ("workers: {drain_timeout: .inf}", "workers.drain_timeout: found inf; allowed is a number from 0 to 100000000"),
        ("workers: {drain_timeout: .nan}", "workers.drain_timeout: found nan; allowed is a number from 0 to 100000000"),
        ("workers: {prefetch: 0}", "workers.prefetch: found 0; allowed is auto or a whole number, 1 or more"),
        ("workers: {queues: []}", "workers.queues: found []; allowed is a list of at least 1; each entry: 1 to 128 of the characters A-Z a-z 0-9 _ . : -"),
        ("workers: {max_memory: 5, max_memory_hard: 4}", "workers.max_memory_hard: 4 bytes are less than workers.max_memory, 5 bytes"),
        ("workers: {recycle_share: 0}", "workers.recycle_share: found 0; allowed is a number more than 0, up to 1"),
        ("autoscale: {min: 9, max: 3}", "autoscale.max: 3 is less than autoscale.min, 9"),
        ("pressure: {high: 4}", "pressure.high: 4 % is less than pressure.low, 5 %"),
        ("workers: {queues: [a, b, a]}", "workers.queues: names a twice"),
        ("workers: 4", "workers: must be a section with keys, not one value"),
        ("workers: {contt: 4}", "workers.contt: unknown key; did you mean count?"),
        ("limits: {x1: 4}", "limits.x1: unknown key; known are payload_bytes, queue_length, result_bytes"),
        ("pool: no", "pool: found False; allowed is 1 to 64 of the characters A-Z a-z 0-9 _ -"),
        ("log: {level: INFO}", "log.level: found 'INFO'; allowed is one of debug, info, warning, error"),
        ("metrics: {enabled: 1}", "metrics.enabled: found 1; allowed is true or false"),
        ("producer: {levels: [a]}", "producer.levels: found ['a']; allowed is a mapping of text to text"),
        ("redis: {url: http://x}", "redis.url: unknown scheme; use redis://, rediss:// or unix://"),
        ("redis: {url: 'redis://'}", "redis.url: names no host"),
        ("redis: {url: 'unix://'}", "redis.url: unix:// needs a path, as in unix:///run/redis/redis.sock"),
        ("redis: {url: 'redis://h/1?ssl_ciphers=x'}", "redis.url: after the `?`, only db=NUMBER is known; write other options as keys under `redis:`"),
        ("redis: {tls_ca_file: a.pem}", "redis.tls_ca_file: only has a meaning with a rediss:// URL"),
        ("control: {socket: a.sock}", "control.socket: 'a.sock' must be an absolute path"),
    ],
)  # fmt: skip
def test_a_fault_names_the_key_what_was_found_and_what_is_allowed(file: Path, text: str, fault: str) -> None:
    file.write_text(text)

    assert faults_of(file) == (fault,)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"- a\n- b\n", "must be a mapping of sections and keys, not ['a', 'b']"),
        (b"just text", "must be a mapping of sections and keys, not 'just text'"),
        (b"a: [", "is no YAML: while parsing"),
        (b"a: \xff\xfe", "is no YAML: 'utf-8' codec can't decode"),
        (b"pool: a\npool: b\n", "is no YAML: key 'pool' is given twice"),
        (b"[" * 5000, "is no YAML that rqsup reads: nested too deeply"),
        (b"pool: !!python/object/apply:os.getcwd []", "is no YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_mapping_in_yaml_is_refused(file: Path, content: bytes, fault: str) -> None:
    file.write_bytes(content)

    faults = faults_of(file)

    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_a_small_file_that_describes_a_huge_value_gets_a_short_fault(file: Path) -> None:
    lines = ["x0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    file.write_text("\n".join([*lines, "pool: *a11"]))

    assert max(map(len, faults_of(file))) < 500


def test_a_file_that_does_not_exist_is_a_fault(file: Path) -> None:
    assert faults_of(file) == (
        "cannot be read (No such file or directory): name another file with -c, or let this user read it",
    )


def test_a_file_that_everybody_can_write_is_refused(file: Path) -> None:
    file.write_text("pool: a\n")
    file.chmod(0o646)

    assert faults_of(file)[0].startswith("is writable by everybody")


def test_the_error_names_the_file_and_counts_the_faults(file: Path) -> None:
    file.write_text("pool: a b\nx: 1\n")

    with pytest.raises(ConfigError, match=r"rqsup.yaml has 2 fault\(s\):\n  pool: "):
        load(file, {})


def test_a_variable_that_names_no_section_and_key_is_a_fault() -> None:
    assert faults_of(RQSUP_REDIS__URL__HOST="x") == (
        "RQSUP_REDIS__URL__HOST: names no setting; write RQSUP_<SECTION>__<KEY>",
    )
    assert faults_of(RQSUP_NAMESPAC="x") == ("namespac (from RQSUP_NAMESPAC): unknown key; did you mean namespace?",)
    assert faults_of(RQSUP_REDIS="redis://h") == (
        "redis (from RQSUP_REDIS): must be a section with keys, not one value",
    )
    assert faults_of(RQSUP_WORKERS__QUEUES="[a")[0].startswith(
        "workers.queues (from RQSUP_WORKERS__QUEUES): found '[a'; allowed is a list"
    )


def test_a_variable_for_a_section_that_is_no_mapping_leaves_one_fault(file: Path) -> None:
    file.write_text("workers: 4")

    assert faults_of(file, RQSUP_WORKERS__COUNT="3") == ("workers: must be a section with keys, not one value",)


def test_tls_files_go_together() -> None:
    tls = {"RQSUP_REDIS__URL": "rediss://h", "RQSUP_REDIS__TLS_KEY_FILE": "k.pem"}

    assert faults_of(None, **tls) == ("redis.tls_key_file: needs redis.tls_cert_file too",)
    assert load(None, {**tls, "RQSUP_REDIS__TLS_CERT_FILE": "c.pem"}).redis.tls_key_file == "k.pem"


@pytest.mark.parametrize("secret", ["hun#ter2", "hun/ter2", "hun?ter2", "hun[ter2"])
@pytest.mark.parametrize("form", ["redis://app:{}@db:6379/0", "redis://:{}@db/x", "{}", "mysql://a:{}@b"])
def test_no_fault_repeats_the_password_of_an_address(form: str, secret: str) -> None:
    text = str(faults_of(RQSUP_REDIS__URL=form.format(secret)))

    assert "hun" not in text
    assert "ter2" not in text


def test_no_fault_repeats_a_password_that_stands_in_the_wrong_place(file: Path) -> None:
    file.write_text("redis: {url: [redis://:hunter2@db], password: hunter2}")

    assert "hunter2" not in str(faults_of(file, RQSUP_REDIS__PASSWORD="hunter2"))
    assert "hunter2" not in str(faults_of(RQSUP_REDIS="redis://:hunter2@db"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://db:6379/0", "redis://db:6379/0"),
        ("redis://app@db", "redis://app@db"),
        ("redis://:hunter2@db/0", "redis://:***@db/0"),
        ("rediss://app:hun@ter2@db:1", "rediss://app:***@db:1"),
        ("unix://app:hunter2@/run/r.sock?db=1", "unix://app:***@/run/r.sock?db=1"),
        ("redis://db?password=hunter2&db=1", "redis://db?password=***&db=1"),
        ("redis://:hun#ter2@db", "***"),
        ("redis://[hunter2", "***"),
    ],
)
def test_passwords_are_redacted(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_show_leaves_the_password_out() -> None:
    settings = load(None, {"RQSUP_REDIS__URL": "redis://app:hunter2@db"})

    assert show(settings)["redis"]["url"] == "redis://app:***@db"
    assert "hunter2" not in str(show(settings))


def test_a_systemd_credential_comes_before_the_password_file(tmp_path: Path) -> None:
    (tmp_path / "redis-password").write_text("hunter2\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "RQSUP_REDIS__PASSWORD_FILE": "/etc/other"}

    assert load(None, environ).redis.password_file == str(tmp_path / "redis-password")


@pytest.mark.parametrize("content", ["-", "-\n", "", None])
def test_an_empty_or_missing_credential_means_no_password(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "redis-password").write_text(content)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "RQSUP_REDIS__PASSWORD_FILE": "/etc/other"}

    assert load(None, environ).redis.password_file == "/etc/other"  # noqa: S105 - a path


def test_a_credential_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "redis-password").write_bytes(b"\xff\xfe")

    assert faults_of(CREDENTIALS_DIRECTORY=str(tmp_path))[0].startswith(
        "systemd credential redis-password: cannot be read"
    )


def test_the_socket_lies_in_the_runtime_directory_of_the_service() -> None:
    assert load(None, {"RUNTIME_DIRECTORY": "/run/rqsup/blue:/run/x"}).control.socket == "/run/rqsup/blue/control.sock"


def test_an_explicit_socket_path_is_kept() -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/rqsup/blue", "RQSUP_CONTROL__SOCKET": "/srv/c.sock"}

    assert load(None, environ).control.socket == "/srv/c.sock"


def test_root_finds_the_socket_of_each_pool_below_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert load(None, {"RQSUP_POOL": "blue"}).control.socket == "/run/rqsup/blue/control.sock"
    assert changed_keys(load(None, {"RQSUP_POOL": "blue"}), {}) == ["pool"]


def test_another_user_has_the_socket_in_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    assert (
        load(None, {"XDG_RUNTIME_DIR": "/run/user/4711"}).control.socket == "/run/user/4711/rqsup/default/control.sock"
    )
    assert load(None, {}).control.socket == "/tmp/rqsup-4711/rqsup/default/control.sock"


def test_a_system_folder_that_only_root_may_enter_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(Path, "stat", forbidden)

    assert load(None, {"XDG_RUNTIME_DIR": "/run/user/1"}).control.socket == "/run/user/1/rqsup/default/control.sock"


def test_a_socket_path_that_no_kernel_takes_is_a_fault() -> None:
    assert faults_of(RQSUP_CONTROL__SOCKET="/" + "x" * 107) == (
        f"control.socket: /{'x' * 107} has 108 bytes; a socket's path may have 107",
    )
    load(None, {"RQSUP_CONTROL__SOCKET": "/" + "x" * 106})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().pool = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue] - the test
