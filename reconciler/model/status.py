"""What is shown of an object: observed, with conditions that say why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reconciler.lib.units import rfc3339
from reconciler.model.nouns import Noun


class State(StrEnum):
    """Where an object is."""

    READY = "ready"
    STARTING = "starting"
    STOPPED = "stopped"
    FAILED = "failed"
    MISSING = "missing"
    PRESENT = "present"
    DETACHED = "detached"
    UNKNOWN = "unknown"


class ConditionType(StrEnum):
    """What a condition is about. `Ready` is wished for; of the others, `True` is what a reader should know."""

    READY = "Ready"
    PROTECTED = "Protected"
    DRIFTED = "Drifted"
    PROGRESSING = "Progressing"
    """Something is being done to it, or will be tried again."""
    DEGRADED = "Degraded"
    """The last thing that was tried on it failed."""
    HELD = "Held"
    """A difference is left as it is until somebody decides."""
    CACHE_PRESSURE = "CachePressure"
    """The cache is above its limit, and nothing of it may go."""
    CONTENDED = "Contended"
    """Somebody undoes what is repaired, so repairs have stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One statement about an object, in the manner of Kubernetes: `status` is True, False or None for unknown.

    `since`, in seconds since the epoch, is when a controller saw it become so; None where none keeps watch.
    """

    type: ConditionType
    status: bool | None
    reason: str
    message: str = ""
    since: float | None = None

    def to_json(self) -> dict[str, Any]:
        status = {True: "True", False: "False", None: "Unknown"}[self.status]
        return {
            "type": self.type.value,
            "status": status,
            "reason": self.reason,
            "message": self.message,
            "lastTransition": None if self.since is None else rfc3339(self.since),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStatus:
    """One object of an environment. `details` holds what only its kind has, ready for JSON."""

    kind: Noun
    name: str
    environment: str
    state: State
    ready: bool
    address: str | None = None
    conditions: tuple[Condition, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The condition that a reader should know first, for a table's last column."""
        wished = (ConditionType.READY, ConditionType.PROTECTED)
        told = [c for c in self.conditions if c.message and (c.status is not True) is (c.type in wished)]
        # Why it is held or was given up says more than that it is not ready.
        return next((c.message for c in reversed(told)), "")

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "name": self.name,
            "environment": self.environment,
            "ready": self.ready,
            "state": self.state.value,
            "address": self.address,
            "conditions": [condition.to_json() for condition in self.conditions],
            **self.details,
        }
