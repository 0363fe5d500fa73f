"""The error that every layer raises and only the command line turns into an exit.

A failure names its cause, a hint at what would help, and the command that replays it.
No I/O here: the pure core imports this module.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorClass(StrEnum):
    """What a retry can do about a failure."""

    RETRYABLE = "retryable"
    """The same call may succeed later: a mirror that timed out, a port that was taken."""
    TERMINAL = "terminal"
    """The same call fails again until somebody changes something."""
    CANCELLED = "cancelled"
    """The user stopped it; nothing is wrong."""

    @property
    def worth_retrying(self) -> bool:
        return self is ErrorClass.RETRYABLE


class BangerError(Exception):
    """A failure that a user can read.

    Parameters
    ----------
    cause: one sentence, lower case, without a full stop: what went wrong, and with what.
    hint: what the user can do about it, or None.
    replay: a shell command that shows the same failure, or None.
    error_class: whether a retry can help.
    """

    exit_code = 1

    def __init__(
        self,
        cause: str,
        *,
        hint: str | None = None,
        replay: str | None = None,
        error_class: ErrorClass = ErrorClass.TERMINAL,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.replay = replay
        self.error_class = error_class


class UsageError(BangerError):
    """The command line or the specification is wrong; nothing was done."""

    exit_code = 2


class NotReadyError(BangerError):
    """Everything was done, and something was not ready in time."""

    exit_code = 4


class CancelledError(BangerError):
    """Stopped by Ctrl-C or SIGTERM."""

    exit_code = 130

    def __init__(self, cause: str = "interrupted") -> None:
        super().__init__(cause, error_class=ErrorClass.CANCELLED)
