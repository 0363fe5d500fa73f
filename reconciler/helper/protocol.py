"""What can be asked of the helper, and how it travels. Pure; see docs/helper-protocol.md.

A frame is a length (4 bytes, big-endian, 1 to 65,536) and that many bytes of UTF-8 JSON (RFC 8259, one object).
Decoding is strict where the json module is lenient: equal keys, NaN, unknown fields and a bool for an integer are
refused, and nesting is bounded before the parser sees it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

VERSION = 1
MAX_FRAME = 64 * 1024
HEADER = struct.Struct("!I")
_MAX_DEPTH = 4  # the envelope, its arguments, a list, a row
# A text, to its end or that of the message: what is left has none that looks like structure.
_TEXT = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.S)
_BRACKETS = re.compile(r"[\[\]{}]")


class Code(StrEnum):
    """Why a request was refused. Stable: scripts may match on the values.

    `transient`: the same request may succeed later without anybody changing the specification. `closes`: the
    connection ends with this refusal, since the stream is out of step, or its peer not to be trusted.
    """

    transient: bool
    closes: bool

    def __new__(cls, value: str, *traits: str) -> Code:
        member = str.__new__(cls, value)
        member._value_ = value
        member.transient, member.closes = "transient" in traits, "closes" in traits
        return member

    BAD_FRAME = "bad-frame", "closes"
    BAD_ENCODING = "bad-encoding"
    BAD_VERSION = "bad-version"
    UNKNOWN_OPERATION = "unknown-operation"
    BAD_FIELD = "bad-field"
    BAD_NAME = "bad-name"
    BAD_CIDR = "bad-cidr"
    BAD_MTU = "bad-mtu"
    BAD_ADDRESS = "bad-address"
    BAD_PORT = "bad-port"
    CIDR_TAKEN = "cidr-taken"
    PORT_TAKEN = "port-taken", "transient"
    BAD_IDENTITY = "bad-identity", "closes"
    DESCRIPTORS = "unexpected-descriptors", "closes"
    REPLAYED = "replayed-request"
    QUOTA = "quota-exceeded"
    FOREIGN_LINK = "foreign-link"
    FOREIGN_PORT = "foreign-port"
    FOREIGN_TABLE = "foreign-table"
    NO_BRIDGE = "no-bridge", "transient"
    NO_RULES = "no-rules", "transient"
    IN_USE = "in-use", "transient"
    TOO_MANY_CONNECTIONS = "too-many-connections", "transient", "closes"
    TIMED_OUT = "timed-out", "transient", "closes"
    SHUTTING_DOWN = "shutting-down", "transient", "closes"
    FAILED = "failed", "transient"


class Refusal(Exception):  # noqa: N818 - an answer of the protocol, which is also raised
    """The helper's no: nothing was changed, unless the code is `failed`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Op(StrEnum):
    """What can be asked, and which of a request's fields are part of it, beside `install`."""

    fields: tuple[str, ...]

    def __new__(cls, value: str, fields: str) -> Op:
        member = str.__new__(cls, value)
        member._value_ = value
        member.fields = ("install", *fields.split())
        return member

    ENSURE_BRIDGE = "ensure_bridge", "environment network cidr cidr6 mtu"
    DELETE_BRIDGE = "delete_bridge", "environment network"
    ENSURE_TAP = "ensure_tap", "environment network vm mtu"
    DELETE_TAP = "delete_tap", "environment vm"
    ENSURE_RULES = (
        "ensure_rules",
        "environment network digest cidr cidr6 nat isolated dns restricted egress vms ports",
    )
    SHOW_RULES = "show_rules", ""
    WATCH_RULES = "watch_rules", "generation"
    ALLOW_ADDRESSES = "allow_addresses", "environment network name addresses seconds"
    DNS_SOCKETS = "dns_sockets", "environment network"
    ROUTE_NAMES = "route_names", "environment network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked: an operation, and the fields that it has (docs/helper-protocol.md); the others stay empty.

    `mtu` in bytes, `seconds` until addresses are forgotten. Rows: egress (to, protocol, first port, last port), vms
    (VM, its IPv4 address), ports (host address, host port, protocol, VM, guest port).
    """

    op: Op
    install: str
    environment: str = ""
    network: str = ""
    vm: str = ""
    cidr: str = ""
    cidr6: str = ""
    mtu: int = 0
    digest: str = ""
    nat: bool = False
    isolated: bool = False
    dns: bool = False
    restricted: bool = False
    egress: tuple[tuple[str, str, int, int], ...] = ()
    vms: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[str, int, str, str, int], ...] = ()
    generation: int = 0
    name: str = ""
    addresses: tuple[str, ...] = ()
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Envelope:
    """A request on its way: `id` is unique to it, `operation` names the caller's piece of work in the audit."""

    id: str
    operation: str
    request: Request


@dataclass(frozen=True, slots=True)
class Done:
    """A request's effect: the interface it was about, and whether anything had to change.

    Rows of `rules`: environment, network, digest, intact. `descriptors` travel beside the frame.
    """

    interface: str
    changed: bool
    generation: int = 0
    rules: tuple[tuple[str, str, str, bool], ...] = ()
    blockers: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()


def decode_request(payload: bytes) -> Envelope:
    """The request in a frame's payload; Refusal says what is wrong with it."""
    message = parse(payload)
    if message.get("version") != VERSION or type(message["version"]) is not int:
        raise Refusal(Code.BAD_VERSION, f"this helper speaks version {VERSION}")
    envelope = typed(message, {"version": int, "id": str, "operation": str, "op": str, "args": dict}, "the request")
    op = next((op for op in Op if op == envelope["op"]), None)
    if op is None:
        raise Refusal(Code.UNKNOWN_OPERATION, f"there is no operation {envelope['op'][:40]!r}")
    hints = _hints(Request)
    arguments = typed(envelope["args"], {name: hints[name] for name in op.fields}, op)
    return Envelope(envelope["id"], envelope["operation"], Request(op=op, **arguments))


def request_id(payload: bytes) -> str | None:
    """The id of a request, even of one that is otherwise wrong, so that its refusal finds its sender."""
    try:
        found = parse(payload).get("id")
    except Refusal:
        return None
    return found if isinstance(found, str) and len(found) <= 64 else None


def encode_answer(identity: str | None, outcome: Done | Refusal) -> bytes:
    """The frame of an answer; `identity` is None if the request was too broken to have one."""
    if isinstance(outcome, Refusal):
        error = {"code": outcome.code, "message": outcome.message[:4096]}
        return frame({"version": VERSION, "id": identity, "refused": error})
    facts = asdict(outcome)
    del facts["descriptors"]
    return frame({"version": VERSION, "id": identity, "done": {k: v for k, v in facts.items() if v or k == "changed"}})


def frame(message: dict[str, object]) -> bytes:
    """A message with its length in front."""
    payload = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    if len(payload) > MAX_FRAME:
        raise Refusal(Code.BAD_FRAME, f"{len(payload)} bytes are more than the {MAX_FRAME} that a frame holds")
    return HEADER.pack(len(payload)) + payload


def payload_length(header: bytes) -> int:
    """The length that a frame's header announces; Refusal if no frame may be that long."""
    length: int = HEADER.unpack(header)[0]
    if not 1 <= length <= MAX_FRAME:
        raise Refusal(Code.BAD_FRAME, f"a frame has 1 to {MAX_FRAME} bytes, not {length}")
    return length


def parse(payload: bytes) -> dict[str, Any]:
    """The JSON object in a payload; Refusal if it is not exactly one."""
    try:
        text = payload.decode("utf-8")
        depth = 0
        for bracket in _BRACKETS.findall(_TEXT.sub("", text)):
            depth += 1 if bracket in "[{" else -1
            if depth > _MAX_DEPTH:
                raise ValueError(f"nested deeper than {_MAX_DEPTH}")
        message = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise Refusal(Code.BAD_ENCODING, f"not the JSON of a request: {str(problem)[:200]}") from None
    if not isinstance(message, dict):
        raise Refusal(Code.BAD_ENCODING, "a request is a JSON object")
    return message


def typed(message: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The fields of a message, lists as tuples; Refusal unless it has exactly the wanted ones of the wanted types."""
    if unknown := sorted(set(message) - set(wanted)):
        raise Refusal(Code.BAD_FIELD, f"{what} has no field {unknown[0][:40]!r}")
    fields = {}
    for name, hint in wanted.items():
        try:
            fields[name] = _typed(message[name], hint)
        except (KeyError, TypeError):
            raise Refusal(Code.BAD_FIELD, f"{what} needs {name!r} as {getattr(hint, '__name__', hint)}") from None
    return fields


def _typed(value: object, hint: Any) -> object:
    if get_origin(hint) is not tuple:
        # Not isinstance: to Python a bool is an int.
        if type(value) is not hint:
            raise TypeError
        return value
    if type(value) is not list:
        raise TypeError
    inner = get_args(hint)
    if inner[-1] is Ellipsis:
        inner = inner[:1] * len(value)
    if len(inner) != len(value):
        raise TypeError
    return tuple(map(_typed, value, inner))


_hints = cache(get_type_hints)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not an integer")
