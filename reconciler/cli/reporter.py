"""How work is told while it goes on: lines where nobody watches, nothing when asked, live on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from reconciler.api.service import Reporter
from reconciler.cli.steplines import end_line, label, retry_line
from reconciler.cli.terminal import draws, harmless, say
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Step
from reconciler.model.status import ObjectStatus, State

_SECONDS_BETWEEN_LINES = 1.0


class Quiet:
    """Tells nothing. Errors are told by whoever ends the command."""

    def started(self, step: Step) -> None:
        pass

    def progress(self, step: Step, fraction: float | None, message: str) -> None:
        pass

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        pass

    def finished(self, step: Step, outcome: Outcome) -> None:
        pass

    def waiting(self, vms: Sequence[ObjectStatus]) -> None:
        pass

    def note(self, message: str) -> None:
        pass


class Plain:
    """A line for each start, change of message, retry and end; at most one line a second for each step's messages.

    Parameters
    ----------
    line: prints one line.
    monotonic: seconds that never go back.
    """

    def __init__(self, line: Callable[[str], None] = say, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._monotonic = monotonic
        self._told: dict[str, tuple[str, float]] = {}
        self._states: dict[tuple[str, str], State] = {}

    def started(self, step: Step) -> None:
        self._line(harmless(step.action.describe()))

    def progress(self, step: Step, fraction: float | None, message: str) -> None:
        before, when = self._told.get(step.id, ("", float("-inf")))
        now = self._monotonic()
        if message and message != before and now - when >= _SECONDS_BETWEEN_LINES:
            self._told[step.id] = (message, now)
            self._line(f"{label(step)}: {harmless(message)}")

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        self._line(retry_line(step, error, delay))

    def finished(self, step: Step, outcome: Outcome) -> None:
        self._told.pop(step.id, None)
        self._line(end_line(step, outcome))

    def waiting(self, vms: Sequence[ObjectStatus]) -> None:
        for vm in vms:
            key = (vm.environment, vm.name)
            if self._states.get(key) is not vm.state:
                self._states[key] = vm.state
                self._line(f"vm {vm.name}: {vm.state}")

    def note(self, message: str) -> None:
        self._line(harmless(message))


@contextmanager
def reporting(*, quiet: bool) -> Iterator[Reporter]:
    """The reporter that fits stderr; whatever it has drawn is cleared away at the end."""
    if quiet:
        yield Quiet()
    elif draws(sys.stderr):
        from reconciler.cli.live import Live  # noqa: PLC0415  # rich is heavy, and only terminals see it

        with Live() as live:
            yield live
    else:
        yield Plain()
