"""Events: what happened, for people and for programs that follow along. Never acted upon (I1). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one object.

    Parameters
    ----------
    id: grows by at least one from event to event of a state directory.
    at: seconds since the epoch.
    operation: what a grep for one request's whole story looks for; empty if nobody asked for it.
    object: `vm/dev`, or `environment/demo` for what concerns all of it.
    warning: something is not as one would wish.
    reason: one CamelCase word, for programs.
    message: one sentence, for people.
    """

    id: int
    at: float
    operation: str
    environment: str
    object: str
    warning: bool
    reason: str
    message: str

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "at": self.at,
            "operation": self.operation,
            "environment": self.environment,
            "object": self.object,
            "type": "Warning" if self.warning else "Normal",
            "reason": self.reason,
            "message": self.message,
        }
