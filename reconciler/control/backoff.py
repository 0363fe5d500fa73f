"""After how long a failed object is tried again, whatever reminds of it in between.

Exponential with equal jitter ("Exponential Backoff and Jitter", AWS Architecture Blog, 2015): half of each delay is
sure, so that the number of attempts has a limit, and half is random, so that what failed together does not come back
together. All times are monotonic seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from reconciler.lib.errors import BangerError, ErrorClass

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
TERMINAL_SECONDS = 60.0
"""The first delay, before its jitter, where only a change of the host can help: somebody may have made it."""

_WAITING_SECONDS = 5.0
_FORGET_SECONDS = 600.0
_DOUBLINGS = 20


def delay(attempts: int, error: BangerError | None, chance: random.Random, longest: float = LONGEST_SECONDS) -> float:
    """Seconds until the next attempt after `attempts` failures, of which `error` is the last.

    Between half of the exponential delay and all of it, which `longest` limits.
    """
    first = TERMINAL_SECONDS if error is not None and error.error_class is ErrorClass.TERMINAL else FIRST_SECONDS
    full = min(longest, first * 2.0 ** min(attempts - 1, _DOUBLINGS))
    return chance.uniform(full / 2, full)


@dataclass(slots=True)
class Failure:
    """An object that could not be brought to where it should be.

    attempts: failures in a row; none for what merely had to wait.
    steps: the ids of those that failed and have not succeeded since.
    wanted: the last plan still asks for one of them.
    """

    attempts: int = 0
    due: float = 0.0
    last: float = 0.0
    error: BangerError | None = None
    steps: set[str] = field(default_factory=set)
    wanted: bool = True


class Failures:
    """The failing objects of one environment."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._failures: dict[str, Failure] = {}

    def failed(self, target: str, step: str, error: BangerError | None, now: float) -> None:
        failure = self._failures.setdefault(target, Failure())
        failure.attempts += 1
        failure.due = now + delay(failure.attempts, error, self._chance)
        failure.last = now
        failure.error = error
        failure.steps.add(step)
        failure.wanted = True

    def waited(self, target: str, now: float) -> None:
        """It was not its turn: that is no failure, but asking again at once would be a busy loop."""
        failure = self._failures.setdefault(target, Failure())
        failure.due = max(failure.due, now + _WAITING_SECONDS)
        failure.last = now

    def succeeded(self, target: str, step: str, planned: Set[str]) -> None:
        """Clears the object, unless another of its steps has failed that is still `planned`.

        A tap that is made anew before each start that fails says nothing about the start.
        """
        failure = self._failures.get(target)
        if failure is None:
            return
        failure.steps = {other for other in failure.steps if other != step and other in planned}
        if not failure.steps:
            del self._failures[target]

    def look(self, planned: Set[str], now: float) -> None:
        """Takes note of a new plan. An object that is well again for some time starts from the beginning."""
        for target, failure in list(self._failures.items()):
            failure.wanted = not failure.steps.isdisjoint(planned)
            if not failure.wanted and failure.due <= now and now - failure.last >= _FORGET_SECONDS:
                del self._failures[target]

    def due(self, target: str) -> float | None:
        """When the object may be tried again; None if nothing speaks against now."""
        failure = self._failures.get(target)
        return failure.due if failure is not None else None

    def forget(self, target: str | None) -> None:
        """None forgets all."""
        if target is None:
            self._failures.clear()
        else:
            self._failures.pop(target, None)

    def wanted(self) -> Iterator[tuple[str, Failure]]:
        """The objects that failed and are still to be mended."""
        return ((target, failure) for target, failure in self._failures.items() if failure.attempts and failure.wanted)
