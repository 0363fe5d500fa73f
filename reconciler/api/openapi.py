"""The API's description (OpenAPI 3.1), from the same declarations that the router and the checks work by."""

from __future__ import annotations

from functools import cache
from typing import Any

from reconciler import __version__
from reconciler.api import problems
from reconciler.api.endpoints import Endpoint, Kind
from reconciler.api.routes import ENDPOINTS
from reconciler.api.shapes import END, Schema
from reconciler.model.nouns import Noun
from reconciler.model.outcome import Result
from reconciler.model.status import ConditionType, State

PATH = "/v1/openapi.json"
OPERATION_HEADER = "Banger-Operation"
OPERATION: Schema = {"type": "string", "pattern": f"^[A-Za-z0-9._-]{{1,64}}{END}"}
_TEXT: Schema = {"type": "string"}
_MAYBE_TEXT: Schema = {"type": ["string", "null"]}
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_STATUS = {"$ref": "#/components/schemas/Status"}
_STREAM = "A stream of server-sent events, each with JSON as its data; `result` or `error` is the last one."
_EVENTS = (
    "A list; or, with `Accept: text/event-stream`, a stream. Who reads too slowly is told so by `lost`, the last one."
)

_DESCRIPTIONS = {Kind.CHANGE: _STREAM, Kind.WAIT: _STREAM, Kind.EVENTS: _EVENTS}


def _open(required: list[str], **properties: Schema) -> Schema:
    """An object that may have more keys than these: each kind has its own."""
    return {"type": "object", "required": required, "properties": properties}


_SCHEMAS: dict[str, Schema] = {
    "Problem": problems.SCHEMA,
    "Status": _open(
        ["kind", "name", "environment", "ready", "state", "address", "conditions"],
        kind={"enum": [noun.value for noun in Noun]},
        name=_TEXT,
        environment=_TEXT,
        ready={"type": "boolean"},
        state={"enum": [state.value for state in State]},
        address=_MAYBE_TEXT,
        conditions={
            "type": "array",
            "items": _open(
                ["type", "status", "reason", "message", "lastTransition"],
                type={"enum": [kind.value for kind in ConditionType]},
                status={"enum": ["True", "False", "Unknown"]},
                reason=_TEXT,
                message=_TEXT,
                lastTransition=_MAYBE_TEXT,
            ),
        },
    ),
    "Event": _open(
        ["id", "at", "operation", "environment", "object", "type", "reason", "message"],
        id={"type": "integer"},
        at={"type": "number"},
        operation=_TEXT,
        environment=_TEXT,
        object=_TEXT,
        type={"enum": ["Normal", "Warning"]},
        reason=_TEXT,
        message=_TEXT,
    ),
    "Plan": _open(
        ["apiVersion", "kind", "fingerprint", "environment", "steps", "held", "approval"],
        apiVersion={"const": "banger/v1"},
        kind={"const": "Plan"},
        fingerprint={"type": "string", "pattern": "^[0-9a-f]{16}$"},
        environment=_TEXT,
        steps={
            "type": "array",
            "items": _open(
                ["action", "id", "description", "class", "name", "reason", "needs"],
                action=_TEXT,
                id=_TEXT,
                needs={"type": "array", "items": _TEXT},
            ),
        },
        held={"type": "array", "items": _open(["object", "reason", "release"])},
        approval={
            "type": ["string", "null"],
            "description": "What lets held removals go: POST /v1/approvals/{digest}.",
        },
    ),
    "Outcome": _open(
        ["step", "object", "result", "seconds", "attempts", "error", "blockedBy"],
        step=_TEXT,
        object=_TEXT,
        result={"enum": [result.value for result in Result]},
        seconds={"type": "number"},
        attempts={"type": "integer"},
        error={"anyOf": [_PROBLEM, {"type": "null"}]},
        blockedBy=_MAYBE_TEXT,
    ),
    "ApplyResult": _open(
        ["plan", "outcomes", "notReady", "approved"],
        plan={"$ref": "#/components/schemas/Plan"},
        outcomes={"type": "array", "items": {"$ref": "#/components/schemas/Outcome"}},
        notReady={"type": "array", "items": _STATUS},
        approved={"type": "boolean", "description": "False: nothing was done, for `plan` is not what was expected."},
    ),
}


@cache
def document() -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    paths[PATH] = {
        "get": {
            "operationId": "openapi",
            "summary": "This description.",
            "responses": {
                "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}
            },
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "banger controller", "version": __version__},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": endpoint.path_schema} for name in endpoint.path_names
    ]
    parameters += [
        {"name": name, "in": "query", "required": name in endpoint.required, "schema": schema}
        for name, schema in endpoint.query.items()
    ]
    parameters.append({"name": OPERATION_HEADER, "in": "header", "required": False, "schema": OPERATION})
    found: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": _DESCRIPTIONS.get(endpoint.kind, "Done."),
                "headers": {OPERATION_HEADER: {"required": True, "schema": OPERATION}},
                "content": _content(endpoint),
            },
            "default": {
                "description": "It did not work, or the request is not right.",
                "content": {problems.CONTENT_TYPE: {"schema": _PROBLEM}},
            },
        },
    }
    if endpoint.body is not None:
        media: dict[str, Any] = {"schema": endpoint.body}
        if endpoint.example is not None:
            media["example"] = endpoint.example
        found["requestBody"] = {"required": not endpoint.body_optional, "content": {"application/json": media}}
    return found


def _sent(name: str, data: Schema, **more: Schema) -> Schema:
    """One kind of server-sent event, in the manner of OpenAPI 3.2."""
    content: Schema = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    properties = {"event": {"const": name}, "data": content, **more}
    return {"type": "object", "required": ["event", "data"], "additionalProperties": False, "properties": properties}


def _of_step(**more: Schema) -> Schema:
    step: Schema = {
        "type": "object",
        "description": "All of the step, when it is first named and whenever it has changed.",
    }
    return _open(["id", *more], id=_TEXT, step=step, **more)


def _progress(result: Schema) -> Schema:
    """What the stream of an operation consists of."""
    return {
        "anyOf": [
            _sent("started", _of_step()),
            _sent("progress", _of_step(fraction={"type": ["number", "null"]}, message=_TEXT)),
            _sent("retrying", _of_step(error=_PROBLEM, delay={"type": "number", "description": "Seconds."})),
            _sent("finished", _of_step(outcome={"$ref": "#/components/schemas/Outcome"})),
            _sent("waiting", _open(["apiVersion", "items"], items={"type": "array", "items": _STATUS})),
            _sent("note", _open(["message"], message=_TEXT)),
            _sent("result", result),
            _sent("error", _PROBLEM),
        ]
    }


def _content(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.kind is Kind.TEXT:
        return {"text/plain": {"schema": _TEXT}}
    if endpoint.kind.streams:
        return {"text/event-stream": {"schema": _progress(endpoint.answer)}}
    answer: dict[str, Any] = {"application/json": {"schema": endpoint.answer}}
    if endpoint.kind is Kind.EVENTS:
        event = _sent("event", {"$ref": "#/components/schemas/Event"}, id=_TEXT)
        lost = _sent("lost", _open(["after"], after={"type": ["integer", "null"]}))
        answer["text/event-stream"] = {"schema": {"anyOf": [event, lost]}}
    return answer
