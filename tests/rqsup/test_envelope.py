"""The wire format: what is written can be read, and no bytes can do worse than an EnvelopeError."""

from __future__ import annotations

import json
import uuid
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from rqsup.envelope import VERSION, Envelope, check_name, decode, encode, new_id
from rqsup.errors import EnvelopeError, InvalidJob, PayloadTooLarge
from rqsup.job import LEVEL_LABELS

LIMIT = 1_000_000
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@hypothesis.given(args=st.lists(JSON), kwargs=st.dictionaries(st.text(), JSON), level=st.sampled_from(LEVEL_LABELS))
def test_what_is_written_is_read_again(args: list[Any], kwargs: dict[str, Any], level: str) -> None:
    envelope = Envelope(id="a", task="t", level=level, args=args, kwargs=kwargs, max_attempts=3, timeout_s=1.5)

    assert decode(encode(envelope, LIMIT)) == envelope


@hypothesis.given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused_by_an_envelope_error(data: bytes) -> None:
    try:
        decode(data)
    except EnvelopeError:
        return


@hypothesis.given(st.fixed_dictionaries({}, optional=dict.fromkeys(Envelope.__struct_fields__, JSON)))
def test_any_values_under_the_right_keys_are_read_or_refused(data: dict[str, Any]) -> None:
    try:
        envelope = decode(json.dumps(data).encode())
    except EnvelopeError:
        return
    assert envelope.level in LEVEL_LABELS


@pytest.mark.parametrize(
    "data", [b"", b"[" * 100_000, b'{"args":' + b"[" * 100_000, b"\x80\x04pickle", b"null", b'"\\ud800"'],
    ids=["empty", "deep", "deep inside", "pickle", "null", "half a character"],
)  # fmt: skip
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode(data)


def test_a_newer_format_is_refused_with_advice() -> None:
    with pytest.raises(EnvelopeError, match="upgrade rqsup"):
        decode(json.dumps({"id": "a", "task": "t", "v": VERSION + 1}).encode())


def test_unknown_keys_are_ignored_so_that_senders_may_be_newer() -> None:
    assert decode(b'{"id": "a", "task": "t", "colour": "red"}').task == "t"


def test_defaults_are_not_written() -> None:
    assert json.loads(encode(Envelope(id="a", task="t"), LIMIT)) == {"id": "a", "task": "t"}


@pytest.mark.parametrize("name", ["a", "A.b_c:d-9", "x" * 128])
def test_names_of_the_alphabet_are_allowed(name: str) -> None:
    assert check_name("queue name", name) == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "ä", "a\n", "a{b}", "a\x00", "*"])
@pytest.mark.parametrize("field", ["id", "task", "queue"])
def test_other_names_are_refused_with_the_alphabet(field: str, name: str) -> None:
    with pytest.raises(InvalidJob, match=r"use 1 to 128 of the characters"):
        encode(msgspec.structs.replace(Envelope(id="a", task="t"), **{field: name}), LIMIT)


def test_a_name_that_is_no_text_is_refused() -> None:
    number: Any = 7  # what an untyped caller may do

    with pytest.raises(InvalidJob, match="7 is not allowed"):
        check_name("queue name", number)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(InvalidJob, match="unknown priority 'urgent'"):
        encode(Envelope(id="a", task="t", level="urgent"), LIMIT)
    with pytest.raises(EnvelopeError, match="unknown priority"):
        decode(b'{"id": "a", "task": "t", "level": "urgent"}')


@pytest.mark.parametrize(
    "value", [object(), {1j}, lambda: None, "\ud800"], ids=["object", "complex", "function", "half a character"]
)
def test_an_argument_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidJob, match="can't be written as JSON"):
        encode(Envelope(id="a", task="t", args=[value]), LIMIT)


def test_an_argument_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(InvalidJob):
        encode(Envelope(id="a", task="t", args=loop), LIMIT)


def test_the_limit_counts_the_encoded_bytes() -> None:
    envelope = Envelope(id="a", task="t", args=["ä" * 100])
    size = len(encode(envelope, LIMIT))

    assert encode(envelope, size)
    with pytest.raises(PayloadTooLarge, match=r"allowed are .* \(limits.payload_bytes\)"):
        encode(envelope, size - 1)


def test_new_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    ids = [new_id() for _ in range(2_000)]

    assert len(set(ids)) == len(ids)
    parsed = [uuid.UUID(job_id) for job_id in ids]
    assert {(one.version, one.variant) for one in parsed} == {(7, uuid.RFC_4122)}
    assert [one.int >> 80 for one in parsed] == sorted(one.int >> 80 for one in parsed)
    assert all(str(one) == job_id for one, job_id in zip(parsed, ids, strict=True))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), [[-float("inf")]], {"a": {"b": float("nan")}}, (float("nan"),)]
)
def test_a_number_that_json_does_not_have_is_refused_rather_than_turned_into_null(value: Any) -> None:
    with pytest.raises(InvalidJob, match="NaN or infinity"):
        encode(Envelope(id="a", task="t", args=[value]), LIMIT)


def test_none_is_still_an_argument() -> None:
    assert decode(encode(Envelope(id="a", task="t", args=[None, 1.5], kwargs={"x": None}), LIMIT)).args == [None, 1.5]
