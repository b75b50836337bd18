"""Each script's header says what the body does, and what Python sends."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from rqsup.store import scripts
from rqsup.store.scripts import Call, Settlement
from tests.rqsup.store.raw import Raw

FOLDER = files("rqsup.store") / "lua"
ALL = sorted(entry.name.removesuffix(".lua") for entry in FOLDER.iterdir() if entry.name.endswith(".lua"))
PARTS = [name for name in ALL if name.startswith("_")]
SCRIPTS = [name for name in ALL if not name.startswith("_")]

#: A call of each script with the fewest arguments.
CALLS: dict[str, Call[Any]] = {
    "enqueue": scripts.enqueue("r:", job_id="a", queue="q", level="low", envelope=b""),
    "enqueue_many": scripts.enqueue_many("r:", []),
    "claim": scripts.claim("r:", worker="w", count=1, lanes=[], queues=[], resume=False, wait=False),
    "begin": scripts.begin("r:", worker="w"),
    "settle": scripts.settle("r:", worker="w", settlements=[]),
    "heartbeat": scripts.heartbeat("r:", ttl_ms=1, details={}),
    "recover": scripts.recover("r:", worker="w", cause=b""),
    "promote": scripts.promote("r:"),
    "cancel": scripts.cancel("r:", job_id="a", ttl_ms=1),
    "replay": scripts.replay("r:", job_id="a"),
    "purge_dead": scripts.purge_dead("r:"),
    "locate": scripts.locate("r:", job_id="a", lanes=[], workers=[]),
    "survey": scripts.survey("r:", job_ids=[]),
    "gauge": scripts.gauge("r:", lanes=[]),
    "holding": scripts.holding("r:", workers=[]),
}


def header(name: str) -> list[str]:
    lines = (FOLDER / f"{name}.lua").read_text().splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("--"))]


def body(name: str) -> str:
    lines = (FOLDER / f"{name}.lua").read_text().splitlines()
    return "\n".join(re.sub(r"--.*", "", line) for line in lines[len(header(name)) :])


def documented(name: str) -> tuple[list[int], int | None]:
    """(numbers of single arguments, number from which on there are any number of them)."""
    found = [re.match(r"-- ARGV\[(\d+)(\.\.)?\] +\w+", line) for line in header(name)]
    single = [int(match[1]) for match in found if match and not match[2]]
    rest = [int(match[1]) for match in found if match and match[2]]
    if not rest and any(line.startswith("-- then, per ") for line in header(name)):
        rest = [len(single) + 1]
    return single, rest[0] if rest else None


def uses(name: str) -> list[str]:
    return next(line for line in header(name) if line.startswith("-- Uses: ")).removeprefix("-- Uses: ").split()


def functions(text: str) -> set[str]:
    return set(re.findall(r"^local function (\w+)", text, re.MULTILINE))


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_every_script_has_its_python_function_and_its_own_test_file() -> None:
    assert sorted(scripts.NAMES) == SCRIPTS == sorted(CALLS)
    assert all(hasattr(scripts, name) for name in SCRIPTS)
    here = {entry.name for entry in (files("tests.rqsup.store")).iterdir()}
    assert {f"test_{name}.py" for name in SCRIPTS} <= here


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_header_has_all_its_parts(name: str) -> None:
    lines = header(name)

    assert lines[0].endswith("."), "the first line is one sentence"
    assert "-- KEYS[1] root" in lines
    for part in ("-- Returns ", "-- Atomic: ", "-- Uses: "):
        assert sum(line.startswith(part) for line in lines) == 1, part


@pytest.mark.parametrize("name", SCRIPTS)
def test_arguments_are_numbered_without_a_gap(name: str) -> None:
    single, rest = documented(name)

    assert single == list(range(1, len(single) + 1))
    assert rest in {None, len(single) + 1}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_body_uses_every_documented_argument_and_no_other(name: str) -> None:
    single, rest = documented(name)

    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", body(name))}

    assert used - ({rest} if rest else set()) == set(single)
    assert not re.findall(r"KEYS\[", body(name)), "only _names.lua reads KEYS"
    assert (rest is not None) == bool(re.search(r"ARGV\b(?!\[\d)", body(name)))


@pytest.mark.parametrize("name", SCRIPTS)
def test_python_sends_what_the_header_lists(name: str) -> None:
    single, _ = documented(name)

    assert CALLS[name].script.name == name
    assert len(CALLS[name].arguments) == len(single)
    assert CALLS[name].command(flags=True)[2:4] == (1, "r:")


def test_each_job_sends_the_six_values_that_the_header_lists() -> None:
    line = next(line for line in header("enqueue_many") if line.startswith("-- then, per "))
    listed = line.partition(":")[2].split(",")

    call = scripts.enqueue("r:", job_id="a", queue="q", level="low", envelope=b"")

    assert scripts.JOB_ARGUMENTS == len(listed) == 6
    assert scripts.enqueue_many("r:", [call, call]).arguments[2:] == call.arguments[:6] * 2


def test_each_settlement_sends_the_five_values_that_the_header_lists() -> None:
    line = next(line for line in header("settle") if line.startswith("-- then, per "))
    listed = line.partition(":")[2].split(",")

    call = scripts.settle("r:", worker="w", settlements=[Settlement("a", 1, "succeed", b"", 0)])

    assert len(call.arguments) - len(CALLS["settle"].arguments) == len(listed) == 5


@pytest.mark.parametrize("name", SCRIPTS)
def test_uses_lists_exactly_the_parts_that_are_needed_each_after_its_own_needs(name: str) -> None:
    texts = {part: body(f"_{part}") for part in uses(name)}
    assert {f"_{part}" for part in texts} <= set(PARTS)

    later = body(name)
    for part in reversed(uses(name)):
        defined = functions(texts[part])
        assert part == "names" or defined & words(later), f"{part} is not used"
        later += texts[part]
    known = set[str]()
    for part, text in [*texts.items(), (name, body(name))]:
        defined_anywhere = {function for other in PARTS for function in functions(body(other))}
        called = {function for function in defined_anywhere if re.search(rf"(?<![.\w]){function}\(", text)}
        known |= functions(text)
        assert called <= known, f"{part} calls {called - known}, which no earlier part defines"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_flag_is_explained_and_goes_into_the_shebang_of_servers_that_know_it(name: str) -> None:
    script = scripts.script(name)
    flags = [line for line in header(name) if line.startswith("-- Flags: ")]

    assert all(re.fullmatch(r"-- Flags: [a-z-]+ \(.+\)", line) for line in flags)
    assert script.source.startswith("#!lua flags=allow-oom\n") == bool(flags)
    assert script.plain_source.startswith("-- Key names")
    assert script.variant(flags=False) == (script.plain_sha, script.plain_source)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_loads_code_or_reads_a_hosts_clock(name: str) -> None:
    forbidden = {"loadstring", "load", "dofile", "os", "KEYS", "HGETALL", "SMEMBERS", "FLUSHALL"}

    assert not forbidden & words(body(name))


def test_names_in_scripts_equal_the_names_in_python(raw: Raw) -> None:
    keys = raw.keys
    expected = {
        "root": keys.root, "workers_key": keys.workers, "waiting_key": keys.waiting, "scheduled_key": keys.scheduled,
        "dead_key": keys.dead, "stats_key": keys.stats, "queues_key": keys.queues, "due_channel": keys.due,
        "job_key('x')": keys.job("x"), "ready_key('x')": keys.ready("x"), "idle_key('x')": keys.idle("x"),
        "inbox_key('x')": keys.inbox("x"), "processing_key('x')": keys.processing("x"), "worker_key('x')": keys.worker("x"),
    }  # fmt: skip
    source = (FOLDER / "_names.lua").read_text()

    for lua, name in expected.items():
        assert raw.redis.eval(f"{source}\nreturn {lua}", 1, keys.root) == name.encode()
    defined = set(re.findall(r"^local (?:function )?(\w+)", source, re.MULTILINE))
    assert defined == {lua.partition("(")[0] for lua in expected}


@pytest.mark.parametrize("flags", [True, False], ids=["7.0 and later", "before 7.0"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_both_variants_load_under_the_hash_that_python_computed(raw: Raw, name: str, flags: bool) -> None:
    sha, source = scripts.script(name).variant(flags=flags)

    assert raw.redis.script_load(source) == sha
