"""What the wheel asks of the host below it, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from reconciler.lib.errors import BangerError
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Plan, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """One look at one environment.

    Parameters
    ----------
    generation: of what was wanted when the pass began; 0 if that could not be read.
    plan: what was to be done; None if the pass failed, and `error` says how.
    launched: the ids of the steps that could begin.
    seconds: how long observing and planning took.
    next_in: seconds until the next pass if nobody asks for one before; None if there will be none.
    """

    environment: str
    generation: int
    plan: Plan | None
    error: BangerError | None = None
    launched: tuple[str, ...] = ()
    seconds: float = 0.0
    next_in: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps an object from being as it should, or what is being done about it.

    Parameters
    ----------
    attempts: failures in a row.
    retry_in: seconds until it may be tried again; None while it is in flight.
    error: of the last attempt.
    contended: somebody undoes what is done to it, and it is left alone for `retry_in` seconds.
    in_flight: the verb of the step that runs, and `since` when, in monotonic seconds.
    """

    object: str
    attempts: int = 0
    retry_in: float | None = None
    error: BangerError | None = None
    contended: bool = False
    in_flight: str | None = None
    since: float | None = None


class Host(Protocol):
    """The environments and the host under them. Every method may be called from several threads.

    What one raises fails the pass in which it was called, which is repeated after a growing delay.
    """

    def generation(self, environment: str) -> int:
        """Grows with every change of what is wanted; 0 if there is no such environment (any more)."""

    def resync(self, environment: str) -> float:
        """Seconds after which to look again though nothing has happened."""

    def plan(self, environment: str) -> Plan:
        """Observes, and says what is to be done."""

    def launchable(self, environment: str, step: Step) -> bool:
        """Whether a step may begin: not if it is paused, or seen to by others. Cheap. Who changes the answer pokes."""

    def run(self, environment: str, step: Step) -> Outcome:
        """Tries a step once, for as long as that takes."""

    def settled(self, report: PassReport) -> None:
        """Called after each pass; those of one environment one after another."""
