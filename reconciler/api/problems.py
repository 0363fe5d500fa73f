"""Errors over the wire: an error as a problem document (RFC 9457), and the same error again at the other end.

Cause, hint, replay and exit code survive, so that the command line says the same with a controller as without one.
"""

from __future__ import annotations

from typing import Any

from reconciler.lib.errors import BangerError, CancelledError, ErrorClass, NotReadyError, UsageError

CONTENT_TYPE = "application/problem+json"
_KINDS: dict[str, type[BangerError]] = {
    "usage": UsageError,
    "not-ready": NotReadyError,
    "cancelled": CancelledError,
    "failed": BangerError,
}
_TITLES = {
    "usage": "the request does not fit what there is",
    "not-ready": "not ready in time",
    "cancelled": "interrupted",
    "failed": "failed",
}
_URN = "urn:banger:problem:"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "cause", "hint", "replay", "exitCode", "class"],
    "additionalProperties": False,
    "properties": {
        "type": {"enum": [_URN + kind for kind in _KINDS], "description": "The kind of error."},
        "title": {"type": "string", "description": "The kind in words."},
        "status": {"type": "integer", "description": "The status code of the answer, or what it would be."},
        "detail": {"type": "string", "description": "The same as `cause`."},
        "cause": {"type": "string", "description": "What went wrong, and with what."},
        "hint": {"type": ["string", "null"], "description": "What the user can do about it."},
        "replay": {"type": ["string", "null"], "description": "A shell command that shows the same failure."},
        "exitCode": {"type": "integer", "description": "What a command ends with that fails so."},
        "class": {"enum": [kind.value for kind in ErrorClass], "description": "Whether a retry can help."},
    },
}


class HttpProblemError(UsageError):
    """An error with a status of its own: a body that is too large, a path that leads nowhere."""

    def __init__(self, status: int, cause: str, *, hint: str | None = None) -> None:
        super().__init__(cause, hint=hint)
        self.status = status


def status_of(error: BangerError) -> int:
    """The HTTP status for an error.

    What the request is to blame for is a 4xx; a host that fails is a 500, and 503 where the same may work later.
    """
    if isinstance(error, HttpProblemError):
        return error.status
    if isinstance(error, UsageError):
        return 422
    if isinstance(error, NotReadyError):
        return 504
    return 503 if isinstance(error, CancelledError) or error.error_class.worth_retrying else 500


def to_problem(error: Exception) -> dict[str, Any]:
    """An error as a problem document; a defect of ours becomes one line, as on the command line."""
    told = error if isinstance(error, BangerError) else BangerError(f"unexpected error: {_in_words(error)}")
    kind = next(name for name, known in _KINDS.items() if isinstance(told, known))
    return {
        "type": _URN + kind,
        "title": _TITLES[kind],
        "status": status_of(told),
        "detail": told.cause,
        "cause": told.cause,
        "hint": told.hint,
        "replay": told.replay,
        "exitCode": told.exit_code,
        "class": told.error_class.value,
    }


def from_problem(data: dict[str, Any]) -> BangerError:
    """The error that `to_problem` made a document of. ValueError, KeyError or TypeError for anything else."""
    kind = _KINDS[data["type"].removeprefix(_URN)]
    error_class = ErrorClass(data["class"])
    cause = str(data["cause"])
    if kind is CancelledError:
        return CancelledError(cause)
    return kind(cause, hint=data["hint"], replay=data["replay"], error_class=error_class)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
