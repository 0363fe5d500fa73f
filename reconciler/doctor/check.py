"""One finding of the doctor. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """Some files need it, others do not."""
    FAIL = "fail"
    """No VM will run without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check's result. `packages` are the Debian packages that would mend it."""

    name: str
    status: Status
    detail: str
    hint: str | None = None
    packages: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "check",
            "name": self.name,
            "status": self.status.value,
            "detail": self.detail,
            "hint": self.hint,
            "packages": list(self.packages),
        }
