"""What the last pass over each environment saw: for status, never for deciding anything (I8)."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from reconciler.model.plan import Plan


@dataclass(frozen=True, slots=True)
class _Last:
    plan: Plan | None
    generation: int | None
    error: str | None


class LastPasses:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, _Last] = {}

    def note(self, environment: str, plan: Plan | None, generation: int, error: str | None) -> None:
        """`plan` is None, and `error` says why, when the host could not be observed: the plan before is kept."""
        with self._lock:
            before = self._last.get(environment)
            if plan is None and before is not None:
                self._last[environment] = _Last(before.plan, before.generation, error)
            else:
                self._last[environment] = _Last(plan, generation if plan is not None else None, error)

    def forget(self, environment: str) -> None:
        with self._lock:
            self._last.pop(environment, None)

    def plan(self, environment: str) -> Plan | None:
        with self._lock:
            return self._last[environment].plan if environment in self._last else None

    def generation(self, environment: str) -> int | None:
        """The generation that the last pass acted upon."""
        with self._lock:
            return self._last[environment].generation if environment in self._last else None

    def error(self, environment: str) -> str | None:
        with self._lock:
            return self._last[environment].error if environment in self._last else None
