"""What can be asked of the helper, and how it travels. Pure; see docs/helper-protocol.md.

A frame is a length (4 bytes, big-endian, 1 to 65,536) and that many bytes of UTF-8 JSON (RFC 8259, one object).
Decoding is strict where the json module is lenient: equal keys, NaN, unknown fields and a bool for an integer are
refused, and nesting is bounded before the parser sees it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, NoReturn, get_type_hints

VERSION = 1
MAX_FRAME = 64 * 1024
HEADER = struct.Struct("!I")
_MAX_DEPTH = 4  # a request has 2 levels, an answer 2


class Code(StrEnum):
    """Why a request was refused. Stable: scripts may match on the values."""

    BAD_FRAME = "bad-frame"
    BAD_ENCODING = "bad-encoding"
    BAD_VERSION = "bad-version"
    UNKNOWN_OPERATION = "unknown-operation"
    BAD_FIELD = "bad-field"
    BAD_NAME = "bad-name"
    BAD_CIDR = "bad-cidr"
    BAD_MTU = "bad-mtu"
    CIDR_TAKEN = "cidr-taken"
    BAD_IDENTITY = "bad-identity"
    DESCRIPTORS = "unexpected-descriptors"
    REPLAYED = "replayed-request"
    QUOTA = "quota-exceeded"
    FOREIGN_LINK = "foreign-link"
    FOREIGN_PORT = "foreign-port"
    NO_BRIDGE = "no-bridge"
    IN_USE = "in-use"
    TOO_MANY_CONNECTIONS = "too-many-connections"
    TIMED_OUT = "timed-out"
    SHUTTING_DOWN = "shutting-down"
    FAILED = "failed"

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later without anybody changing the specification."""
        return self in _TRANSIENT

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this refusal: the stream is out of step, or its peer not to be trusted."""
        return self in _CLOSING


_TRANSIENT = frozenset(
    {Code.NO_BRIDGE, Code.IN_USE, Code.TOO_MANY_CONNECTIONS, Code.TIMED_OUT, Code.SHUTTING_DOWN, Code.FAILED}
)
_CLOSING = frozenset(
    {
        Code.BAD_FRAME,
        Code.BAD_IDENTITY,
        Code.DESCRIPTORS,
        Code.TOO_MANY_CONNECTIONS,
        Code.TIMED_OUT,
        Code.SHUTTING_DOWN,
    }
)


class Refusal(Exception):  # noqa: N818 - an answer of the protocol, which is also raised
    """The helper's no: nothing was changed, unless the code is `failed`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureBridge:
    """Make the bridge of a network exist and be right. `cidr` as a.b.c.d/len, `mtu` in bytes."""

    op: ClassVar[str] = "ensure_bridge"
    install: str
    environment: str
    network: str
    cidr: str
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteBridge:
    """Make the bridge of a network not exist."""

    op: ClassVar[str] = "delete_bridge"
    install: str
    environment: str
    network: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureTap:
    """Make the tap of a VM exist, on the network's bridge, owned by the peer. `mtu` in bytes."""

    op: ClassVar[str] = "ensure_tap"
    install: str
    environment: str
    network: str
    vm: str
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteTap:
    """Make the tap of a VM not exist."""

    op: ClassVar[str] = "delete_tap"
    install: str
    environment: str
    vm: str


Request = EnsureBridge | DeleteBridge | EnsureTap | DeleteTap
OPERATIONS: dict[str, type[Request]] = {kind.op: kind for kind in (EnsureBridge, DeleteBridge, EnsureTap, DeleteTap)}


@dataclass(frozen=True, slots=True)
class Envelope:
    """A request on its way: `id` is unique to it, `operation` names the caller's piece of work in the audit."""

    id: str
    operation: str
    request: Request


@dataclass(frozen=True, slots=True)
class Done:
    """A request's effect: the interface it was about, and whether anything had to change."""

    interface: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer on its way. `id` is None if the request was too broken to have one."""

    id: str | None
    outcome: Done | Refusal


def encode_request(envelope: Envelope) -> bytes:
    """The frame of a request."""
    return frame(
        {
            "version": VERSION,
            "id": envelope.id,
            "operation": envelope.operation,
            "op": envelope.request.op,
            "args": asdict(envelope.request),
        }
    )


def decode_request(payload: bytes) -> Envelope:
    """The request in a frame's payload; Refusal says what is wrong with it."""
    message = _parse(payload)
    if message.get("version") != VERSION or type(message["version"]) is not int:
        raise Refusal(Code.BAD_VERSION, f"this helper speaks version {VERSION}")
    _check(message, {"version": int, "id": str, "operation": str, "op": str, "args": dict}, "the request")
    kind = OPERATIONS.get(message["op"])
    if kind is None:
        raise Refusal(Code.UNKNOWN_OPERATION, f"there is no operation {message['op'][:40]!r}")
    hints = get_type_hints(kind)
    _check(message["args"], {field.name: hints[field.name] for field in fields(kind)}, kind.op)
    return Envelope(message["id"], message["operation"], kind(**message["args"]))


def request_id(payload: bytes) -> str | None:
    """The id of a request, even of one that is otherwise wrong, so that its refusal finds its sender."""
    try:
        found = _parse(payload).get("id")
    except Refusal:
        return None
    return found if isinstance(found, str) and len(found) <= 64 else None


def encode_answer(answer: Answer) -> bytes:
    """The frame of an answer."""
    outcome = answer.outcome
    if isinstance(outcome, Done):
        return frame({"version": VERSION, "id": answer.id, "done": asdict(outcome)})
    error = {"code": str(outcome.code), "message": outcome.message[:4096]}
    return frame({"version": VERSION, "id": answer.id, "refused": error})


def decode_answer(payload: bytes) -> Answer:
    """The answer in a frame's payload; Refusal (bad-encoding, bad-field, bad-version) if it is none."""
    message = _parse(payload)
    if message.get("version") != VERSION:
        raise Refusal(Code.BAD_VERSION, "the helper speaks another version")
    identity = message.get("id")
    if identity is not None and not isinstance(identity, str):
        raise Refusal(Code.BAD_FIELD, "the answer's id is not text")
    if "done" in message:
        _check(message, {"version": int, "id": str, "done": dict}, "the answer")
        _check(message["done"], {"interface": str, "changed": bool}, "the answer")
        return Answer(identity, Done(**message["done"]))
    _check({**message, "id": ""}, {"version": int, "id": str, "refused": dict}, "the answer")
    _check(message["refused"], {"code": str, "message": str}, "the answer")
    try:
        code = Code(message["refused"]["code"])
    except ValueError:
        raise Refusal(Code.BAD_FIELD, "the answer has an unknown code") from None
    return Answer(identity, Refusal(code, message["refused"]["message"]))


def frame(message: dict[str, object]) -> bytes:
    """A message with its length in front."""
    payload = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
    if len(payload) > MAX_FRAME:
        raise Refusal(Code.BAD_FRAME, f"{len(payload)} bytes are more than a frame holds")
    return HEADER.pack(len(payload)) + payload


def payload_length(header: bytes) -> int:
    """The length that a frame's header announces; Refusal if no frame may be that long."""
    length: int = HEADER.unpack(header)[0]
    if not 1 <= length <= MAX_FRAME:
        raise Refusal(Code.BAD_FRAME, f"a frame has 1 to {MAX_FRAME} bytes, not {length}")
    return length


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        text = payload.decode("utf-8")
        _bound_depth(text)
        message = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise Refusal(Code.BAD_ENCODING, f"not the JSON of a request: {str(problem)[:200]}") from None
    if not isinstance(message, dict):
        raise Refusal(Code.BAD_ENCODING, "a request is a JSON object")
    return message


def _bound_depth(text: str) -> None:
    """Counts brackets, those inside strings too: no legal request has that many in its names."""
    depth = 0
    for character in text:
        if character in "[{":
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"nested deeper than {_MAX_DEPTH}")
        elif character in "]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not an integer")


def _check(message: dict[str, Any], wanted: dict[str, type], what: str) -> None:
    if unknown := sorted(set(message) - set(wanted)):
        raise Refusal(Code.BAD_FIELD, f"{what} has no field {unknown[0][:40]!r}")
    for name, kind in wanted.items():
        # Not isinstance: to Python a bool is an int.
        if name not in message or type(message[name]) is not kind:
            raise Refusal(Code.BAD_FIELD, f"{what} needs {name!r} as {kind.__name__}")
