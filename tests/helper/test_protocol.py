"""The protocol: what is encoded decodes to the same, and nothing else decodes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reconciler.helper import protocol
from reconciler.helper.client import Answer, decode_answer, encode_request
from reconciler.helper.protocol import (
    HEADER,
    MAX_FRAME,
    Code,
    Done,
    Envelope,
    Op,
    Refusal,
    Request,
    decode_request,
    encode_answer,
    payload_length,
    request_id,
)

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas/helper.schema.json").read_text())
GOOD = {
    "version": 1,
    "id": "a1",
    "operation": "apply/7",
    "op": "delete_tap",
    "args": {"install": "0123456789ab", "environment": "demo", "vm": "web"},
}

text = st.text(max_size=40)
number = st.integers()
rows = {
    "addresses": st.lists(text, max_size=3).map(tuple),
    "egress": st.lists(st.tuples(text, text, number, number), max_size=3).map(tuple),
    "vms": st.lists(st.tuples(text, text), max_size=3).map(tuple),
    "ports": st.lists(st.tuples(text, number, text, text, number), max_size=3).map(tuple),
}
BY_TYPE = {str: text, int: number, bool: st.booleans()}


def of_op(op: Op) -> st.SearchStrategy[Request]:
    hints = get_type_hints(Request)
    return st.builds(
        Request, op=st.just(op), **{name: rows[name] if name in rows else BY_TYPE[hints[name]] for name in op.fields}
    )


requests: st.SearchStrategy[Request] = st.sampled_from(Op).flatmap(of_op)


def _refused(payload: bytes) -> Code:
    with pytest.raises(Refusal) as caught:
        decode_request(payload)
    return caught.value.code


@given(requests, text, text)
def test_a_request_survives_the_wire(request: Request, identity: str, operation: str) -> None:
    envelope = Envelope(identity, operation, request)
    frame = encode_request(envelope)
    assert payload_length(frame[:4]) == len(frame) - HEADER.size
    assert decode_request(frame[HEADER.size :]) == envelope


answers = st.builds(
    Done,
    text,
    st.booleans(),
    number,
    st.lists(st.tuples(text, text, text, st.booleans()), max_size=3).map(tuple),
    st.lists(text, max_size=3).map(tuple),
)


@given(answers | st.builds(Refusal, st.sampled_from(Code), text))
def test_an_answer_survives_the_wire(outcome: Done | Refusal) -> None:
    answer = decode_answer(encode_answer("a1", outcome)[HEADER.size :])
    if isinstance(outcome, Done):
        assert answer == Answer("a1", outcome)
    else:
        assert isinstance(answer.outcome, Refusal)
        assert (answer.outcome.code, answer.outcome.message) == (outcome.code, outcome.message)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(payload: bytes) -> None:
    _refused(payload)
    request_id(payload)
    with pytest.raises(Refusal):
        decode_answer(payload)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | text, lambda inner: st.dictionaries(text, inner) | st.lists(inner)
    )
)
def test_arbitrary_json_is_refused(message: object) -> None:
    _refused(json.dumps(message).encode())


@given(st.sampled_from(sorted(GOOD)), st.none() | st.booleans() | st.floats() | st.lists(text) | st.just({}))
def test_no_field_takes_another_type(field: str, value: object) -> None:
    _refused(json.dumps({**GOOD, field: value}).encode())


def test_brackets_in_texts_are_no_nesting() -> None:
    refusal = Refusal(Code.FAILED, '[[[[[[ "{{{{{{ \\')
    outcome = decode_answer(encode_answer("a1", refusal)[HEADER.size :]).outcome
    assert isinstance(outcome, Refusal)
    assert outcome.message == refusal.message


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "payload", [b'"\\' * 32_000, b'"' * 64_000, b'"' + b"\\" * 64_000, b'"a' * 32_001, b'\\"' * 32_000]
)
def test_quotes_without_end_take_no_time(payload: bytes) -> None:
    """A pattern that began anew at every quote would take minutes."""
    assert all(_refused(payload) is Code.BAD_ENCODING for _ in range(50))


RAW = {
    "not JSON": (b"hello", Code.BAD_ENCODING),
    "not UTF-8": (b'{"version": "\xff"}', Code.BAD_ENCODING),
    "a byte order mark": (b"\xef\xbb\xbf{}", Code.BAD_ENCODING),
    "NaN": (b'{"version": NaN}', Code.BAD_ENCODING),
    "infinity": (b'{"version": -Infinity}', Code.BAD_ENCODING),
    "a float": (b'{"version": 1.0}', Code.BAD_ENCODING),
    "equal keys": (b'{"version": 1, "version": 1}', Code.BAD_ENCODING),
    "equal keys below": (b'{"version": 1, "args": {"a": 1, "a": 1}}', Code.BAD_ENCODING),
    "a list": (b"[]", Code.BAD_ENCODING),
    "nested 1,000 deep": (b"[" * 1000 + b"]" * 1000, Code.BAD_ENCODING),
    "nested 60,000 deep": (b'{"a":' * 12000, Code.BAD_ENCODING),
    "5,000 digits": (b'{"version": ' + b"1" * 5000 + b"}", Code.BAD_ENCODING),
    "two messages": (json.dumps(GOOD).encode() * 2, Code.BAD_ENCODING),
    "empty": (b"", Code.BAD_ENCODING),
}


@pytest.mark.parametrize("case", RAW)
def test_encoding(case: str) -> None:
    payload, code = RAW[case]
    assert _refused(payload) is code


NAMED = {"install": "0123456789ab", "environment": "demo", "network": "lab", "name": "a.b", "seconds": 9}
MESSAGES = {
    "wrong version": ({**GOOD, "version": 2}, Code.BAD_VERSION),
    "version as a bool": ({**GOOD, "version": True}, Code.BAD_VERSION),
    "no version": ({k: v for k, v in GOOD.items() if k != "version"}, Code.BAD_VERSION),
    "unknown operation": ({**GOOD, "op": "run"}, Code.UNKNOWN_OPERATION),
    "an operation of Python's": ({**GOOD, "op": "__init__"}, Code.UNKNOWN_OPERATION),
    "unknown field": ({**GOOD, "uid": 0}, Code.BAD_FIELD),
    "a uid in the arguments": ({**GOOD, "args": {**GOOD["args"], "uid": 0}}, Code.BAD_FIELD),  # type: ignore[dict-item]
    "a missing argument": ({**GOOD, "args": {"install": "0123456789ab"}}, Code.BAD_FIELD),
    "a row that is too short": (
        {**GOOD, "op": "allow_addresses", "args": {**NAMED, "addresses": [["a"]]}},
        Code.BAD_FIELD,
    ),
    "a text for a list": ({**GOOD, "op": "allow_addresses", "args": {**NAMED, "addresses": "a"}}, Code.BAD_FIELD),
    "a bool for an int": (
        {**GOOD, "op": "ensure_tap", "args": {**GOOD["args"], "network": "lab", "mtu": True}},  # type: ignore[dict-item]
        Code.BAD_FIELD,
    ),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_messages(case: str) -> None:
    message, code = MESSAGES[case]
    assert _refused(json.dumps(message).encode()) is code


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 2**32 - 1])
def test_no_frame_is_that_long(length: int) -> None:
    with pytest.raises(Refusal) as caught:
        payload_length(struct.pack("!I", length))
    assert caught.value.code is Code.BAD_FRAME


def test_the_longest_frame_is_allowed() -> None:
    assert payload_length(struct.pack("!I", MAX_FRAME)) == MAX_FRAME


def test_a_refusal_finds_its_sender() -> None:
    assert request_id(json.dumps({**GOOD, "version": 2}).encode()) == "a1"
    assert request_id(b"nonsense") is None


def test_the_schema_has_the_same_operations_and_fields() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["op"]["enum"] == [str(op) for op in Op]
    assert len(Op) <= 12
    for op in Op:
        definition = SCHEMA["$defs"][op]
        assert definition["required"] == list(op.fields)
        assert list(definition["properties"]) == list(op.fields)


@pytest.mark.parametrize("case", MESSAGES)
def test_the_schema_refuses_the_same(case: str) -> None:
    assert Draft202012Validator(SCHEMA).is_valid(GOOD)
    # To JSON Schema true is not 1 only where a type says so.
    assert not Draft202012Validator(SCHEMA).is_valid(MESSAGES[case][0])


def test_every_code_has_one_spelling() -> None:
    assert [code.value for code in Code if code.transient] == [
        "port-taken", "no-bridge", "no-rules", "in-use", "too-many-connections", "timed-out", "shutting-down", "failed",
    ]  # fmt: skip
    assert [code.value for code in Code if code.closes] == [
        "bad-frame", "bad-identity", "unexpected-descriptors", "too-many-connections", "timed-out", "shutting-down",
    ]  # fmt: skip
    assert protocol.VERSION == 1


def test_a_request_too_long_for_a_frame_says_so() -> None:
    vms = tuple(("a" * 31, "172.30.7.10") for _ in range(2000))
    with pytest.raises(Refusal, match="65536"):
        encode_request(Envelope("a1", "", Request(op=Op.ENSURE_RULES, install="0123456789ab", vms=vms)))
