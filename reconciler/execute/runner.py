"""One step, alone: its intent, its effect with so many tries, its end. Never raises for what the step does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.execute.dispatch import perform as perform_action
from reconciler.execute.dispatch import record
from reconciler.execute.retry import with_retry
from reconciler.execute.tools import Tools
from reconciler.lib import run
from reconciler.lib.errors import BangerError, CancelledError
from reconciler.lib.progress import Progress
from reconciler.model.actions import Action, AwaitReady
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Step

Lock = AbstractContextManager[Any]
Perform = Callable[[Action, Tools, Progress], None]


class Observer(Protocol):
    """Who is told what happens; its methods are called by one thread at a time."""

    def started(self, step: Step) -> None: ...

    def progress(self, step: Step, fraction: float | None, message: str) -> None: ...

    def retrying(self, step: Step, error: Exception, delay: float) -> None: ...

    def finished(self, step: Step, outcome: Outcome) -> None: ...


@dataclass(slots=True)
class _StepProgress:
    step: Step
    observer: Observer
    lock: Lock

    def update(self, fraction: float | None, message: str) -> None:
        with self.lock:
            self.observer.progress(self.step, fraction, message)


def run_step(
    step: Step, tools: Tools, observer: Observer, *, lock: Lock, attempts: int, perform: Perform = perform_action
) -> Outcome:
    """Records the intent of a step, does it, records how it ended, and says so.

    Parameters
    ----------
    lock: held around each call of the observer; shared by all steps that it watches.
    attempts: how often it is tried in all while its error is retryable. Waiting has a time limit of its own, so that
        it is tried once whatever is given.
    """
    if run.cancelled():
        return untried(step, Result.CANCELLED, observer, lock=lock)  # it was in the queue already
    action = step.action
    began = tools.clock.monotonic()
    with lock:
        observer.started(step)
    intent: int | None = None
    tried = 1
    error: BangerError | None = None

    def retrying(problem: Exception, delay: float) -> None:
        nonlocal tried
        tried += 1
        with lock:
            observer.retrying(step, problem, delay)

    try:
        with tools.journal.intend(tools.environment, action) as begun:
            record(action, tools)
        intent = begun  # not before: what is rolled back leaves its number to another
        progress = _StepProgress(step, observer, lock)
        most = 1 if isinstance(action, AwaitReady) else attempts
        with_retry(lambda: perform(action, tools, progress), tools.clock, retrying, attempts=most)
    except Exception as problem:
        error = _explained(problem)
    cancelled = isinstance(error, CancelledError)
    outcome = Outcome(
        step=step.id,
        object=action.object,
        result=Result.CANCELLED if cancelled else Result.FAILED if error else Result.DONE,
        seconds=tools.clock.monotonic() - began,
        attempts=tried,
        error=error,
    )
    if intent is not None:
        outcome = _ended(intent, outcome, tools)
    with lock:
        observer.finished(step, outcome)
    return outcome


def untried(step: Step, result: Result, observer: Observer, *, lock: Lock, blocked_by: str | None = None) -> Outcome:
    """The outcome of a step that is not begun; `blocked_by` is the step that it would have needed."""
    outcome = Outcome(step=step.id, object=step.action.object, result=result, attempts=0, blocked_by=blocked_by)
    with lock:
        observer.finished(step, outcome)
    return outcome


def _ended(intent: int, outcome: Outcome, tools: Tools) -> Outcome:
    """The outcome, recorded; a failure to record it is one of the step, which the next pass repeats."""
    try:
        tools.journal.end(intent, outcome)
    except BangerError as problem:
        return outcome if outcome.error else dataclasses.replace(outcome, result=Result.FAILED, error=problem)
    return outcome


def _explained(problem: Exception) -> BangerError:
    """What a worker raised, as an error of its step: a defect in one action must not end the others (I7)."""
    if isinstance(problem, BangerError):
        return problem
    if isinstance(problem, OSError):
        where = f": {problem.filename}" if problem.filename else ""
        error = BangerError(f"{problem.strerror or problem}{where}")
    else:
        text = f"{type(problem).__name__}: {problem}".rstrip(": ")
        error = BangerError(f"unexpected error: {text}", hint="this is a defect of banger; please report it")
    error.__cause__ = problem
    return error
