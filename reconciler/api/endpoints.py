"""How an operation of the API is declared: once, for the router, for the checks and for the description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reconciler.api.metrics import Counters
from reconciler.api.service import Reporter, Service
from reconciler.api.shapes import NAME, Schema

Work = Callable[[Reporter], Any]
"""The part of an operation that takes long: what it returns is its result, as JSON."""


class Kind(StrEnum):
    """How an operation is answered, and which threads it takes."""

    QUICK = "quick"
    """One answer. The handler returns it."""
    CHANGE = "change"
    """A stream of events that ends with the result. The handler checks the request and returns a `Work`."""
    WAIT = "wait"
    """Like CHANGE, with threads of its own, and over when the client goes: waiting changes nothing."""
    EVENTS = "events"
    """One answer, or a stream that goes on. The handler returns the events so far."""
    TEXT = "text"
    """One answer that is no JSON."""

    @property
    def streams(self) -> bool:
        return self in (Kind.CHANGE, Kind.WAIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, checked: `path` and `query` by name, `body` as JSON, `operation` its name in every log."""

    service: Service
    counters: Counters
    operation: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation of the API.

    Parameters
    ----------
    name: its operationId.
    path: with `{parameters}`; each of them is a name.
    query: the schemas of the query's parameters, none of them required unless in `required`.
    body: the schema of the body; None: it is not read. `body_optional`: it may be missing, and is `{}` then.
    answer: the schema of the answer, or of the result that ends the stream.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Callable[[Call], Any]
    kind: Kind = Kind.QUICK
    query: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    path_schema: Schema = field(default_factory=lambda: NAME)
    body: Schema | None = None
    body_optional: bool = False
    answer: Schema = field(default_factory=dict)
    example: Any = None

    @property
    def path_names(self) -> tuple[str, ...]:
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))
