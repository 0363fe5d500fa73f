"""What comes in, bounded and held against the very schemas that the API's description shows.

Whatever a client sends, the answer is a value or an `HttpProblemError`, never a defect.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request

from reconciler.api.problems import HttpProblemError
from reconciler.api.shapes import Schema
from reconciler.model.codec import from_json
from reconciler.model.desired import DesiredState

BODY_LIMIT = 2 << 20
DEPTH_LIMIT = 32
_BODY_SECONDS = 30.0
_QUOTED = 200
_WORDS = {"true": True, "false": False}


async def read_body(request: Request) -> bytes:
    """The whole body. HttpProblemError if it is larger than BODY_LIMIT or does not come; ClientDisconnect if it never will."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > BODY_LIMIT:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > BODY_LIMIT:
                    raise _too_large()
    except TimeoutError:
        raise HttpProblemError(408, f"the body did not come within {_BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise HttpProblemError(400, "the body ended early") from None
    return bytes(body)


def parse(body: bytes, content_type: str) -> Any:
    """A body as a JSON value. Stricter than `json`: no second value for a key, no NaN, no text that is no Unicode."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise HttpProblemError(415, "a body has to be application/json")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
        _check(value)
    except (ValueError, RecursionError) as problem:
        raise HttpProblemError(400, f"the body is no JSON that can be taken: {_short(problem)}") from None
    return value


def validate(value: Any, schema: Schema, what: str) -> None:
    """Raises HttpProblemError if `value` does not keep to `schema`; `what` says in the message whose value it is."""
    problem = best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    if problem is not None:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem.absolute_path)
        raise HttpProblemError(422, f"{what}{where}: {_short(problem.message)}")


def parameters(given: QueryParams, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """The parameters of a query by name, with their types; those that are not given are not there."""
    found: dict[str, Any] = {}
    for name, text in given.multi_items():
        if name not in schemas:
            known = ", ".join(schemas) or "none"
            raise HttpProblemError(422, f"unknown parameter {_short(name)!r}", hint=f"known: {known}")
        if name in found:
            raise HttpProblemError(422, f"parameter {name} is given twice")
        found[name] = _typed(text, schemas[name])
        validate(found[name], schemas[name], name)
    return found


def desired_from(data: Any) -> DesiredState:
    """A desired state whose names and references agree with each other.

    The command line checks its files more closely and says more; this is for whoever else asks.
    """
    try:
        state = from_json(DesiredState, data)
    except ValueError as problem:
        raise HttpProblemError(422, f"desired: {_short(problem)}") from None
    for kind, things in (
        ("network", state.networks), ("kernel", state.kernels), ("image", state.images), ("vm", state.vms)
    ):  # fmt: skip
        for key, thing in things.items():
            if thing.name != key:
                raise HttpProblemError(422, f"desired: {kind} {key} says that its name is {thing.name}")
    for image in state.images.values():
        _known("kernel", image.kernel, state.kernels, f"image {image.name}")
    for vm in state.vms.values():
        _known("image", vm.image, state.images, f"vm {vm.name}")
        _known("kernel", vm.kernel, state.kernels, f"vm {vm.name}")
        if vm.bridged:
            _known("network", vm.network, state.networks, f"vm {vm.name}")
        if (vm.image_id, vm.kernel_id) != (state.images[vm.image].id, state.kernels[vm.kernel].id):
            raise HttpProblemError(
                422,
                f"desired: the image or kernel of vm {vm.name} has another identity here",
                hint="client and controller are of two versions: restart the controller",
            )
        for dependency in vm.depends_on:
            _known("vm", dependency.vm, state.vms, f"vm {vm.name}")
    try:
        TopologicalSorter({vm.name: [other.vm for other in vm.depends_on] for vm in state.vms.values()}).prepare()
    except CycleError as problem:
        raise HttpProblemError(422, f"desired: vms wait for each other: {' → '.join(problem.args[1])}") from None
    return state


def _known(kind: str, name: str, things: Mapping[str, object], whose: str) -> None:
    if name not in things:
        raise HttpProblemError(422, f"desired: {whose} wants {kind} {name}, which is not there")


def _typed(text: str, schema: Schema) -> Any:
    match schema["type"]:
        case "boolean":
            return _WORDS.get(text, text)
        case "integer" if text.removeprefix("-").isascii() and text.removeprefix("-").isdecimal() and len(text) < 20:
            return int(text)
        case "number":
            try:
                number = float(text)
            except ValueError:
                return text
            return number if math.isfinite(number) else text
    return text


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema))


def _check(value: Any) -> None:
    """Depth, and text that cannot be written anywhere (half a surrogate pair, a zero)."""
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEPTH_LIMIT:
            raise ValueError(f"it is nested more than {DEPTH_LIMIT} deep")
        if isinstance(item, dict):
            waiting += [(key, depth + 1) for key in item]
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            waiting += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str):
            item.encode()
            if "\0" in item:
                raise ValueError("a text has a zero character")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{_short(text)} is too large")
    return number


def _short(text: object) -> str:
    words = str(text).encode(errors="backslashreplace").decode()
    return words if len(words) <= _QUOTED else f"{words[:_QUOTED]}…"


def _too_large() -> HttpProblemError:
    return HttpProblemError(413, f"a body has at most {BODY_LIMIT >> 20} MiB")
