"""What became of an action. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.lib.errors import BangerError


class Result(StrEnum):
    """How one step ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not tried, because something that it needs did not succeed."""
    CANCELLED = "cancelled"

    @property
    def ok(self) -> bool:
        return self is Result.DONE

    @property
    def unsuccessful(self) -> bool:
        """Whether the user has to be told that something did not work; being interrupted is no failure."""
        return self in (Result.FAILED, Result.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One step's end. `seconds` is how long it took; `attempts` how often it was tried."""

    step: str
    object: str
    result: Result
    seconds: float = 0.0
    attempts: int = 1
    error: BangerError | None = None
    blocked_by: str | None = None
