"""One step in one line: what it is, why it is tried again, how it ended."""

from __future__ import annotations

import click

from reconciler.cli.terminal import harmless
from reconciler.lib.errors import BangerError
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Step

_COLOURS = {Result.DONE: "green", Result.FAILED: "red", Result.SKIPPED: "yellow", Result.CANCELLED: "yellow"}


def label(step: Step) -> str:
    """A step in a few words: `build image base`."""
    return f"{step.action.verb} {step.action.noun} {step.action.name}"


def retry_line(step: Step, error: Exception, delay: float) -> str:
    """Why an attempt failed, and when the next one is."""
    cause = error.cause if isinstance(error, BangerError) else str(error)
    first = (harmless(cause).splitlines() or [type(error).__name__])[0]
    return f"{label(step)}: {first}; next try in {delay:.0f} s"


def end_line(step: Step, outcome: Outcome) -> str:
    """How a step ended, styled: `done build image/base (21.4 s)`."""
    word = click.style(outcome.result.value, fg=_COLOURS[outcome.result])
    line = f"{word} {step.id}"
    if outcome.result is Result.SKIPPED:
        return f"{line}: needs {outcome.blocked_by}" if outcome.blocked_by else line
    line = f"{line} ({outcome.seconds:.1f} s)"
    if outcome.error is not None and outcome.result is Result.FAILED:
        return f"{line}: {(harmless(outcome.error.cause).splitlines() or [''])[0]}"
    return line
