"""One pass over one environment, and one try of one step: what the threads of the controller do with a `Wheel`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from reconciler.control.host import Host, PassReport
from reconciler.control.wheel import Wheel
from reconciler.lib.clock import Clock
from reconciler.lib.errors import BangerError
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Step

Lock = AbstractContextManager[Any]


def run_pass(
    wheel: Wheel, lock: Lock, host: Host, clock: Clock, environment: str, *, offer: Callable[[], None]
) -> None:
    """Looks at an environment that `Wheel.begin` gave out, and lets begin what can.

    The lock is held only between the calls to the host. Nothing is raised: a failure is reported, and so is a defect.

    Parameters
    ----------
    offer: called with the lock when there are steps to take.
    """
    began = clock.monotonic()
    seconds = 0.0
    generation = 0
    try:
        # Before the plan: a pass that sees a change halfway counts for what was before it, and another follows.
        generation = host.generation(environment)
        plan = host.plan(environment)
        seconds = clock.monotonic() - began
        with lock:
            steps = wheel.look(environment, generation, plan, clock.monotonic())
        steps = [step for step in steps if host.launchable(environment, step)]
        resync = host.resync(environment)
        with lock:
            launched = wheel.put_up(environment, steps, resync, clock.monotonic())
            next_in = wheel.next_in(environment, clock.monotonic())
            offer()
        report = PassReport(
            environment=environment,
            generation=generation,
            plan=plan,
            launched=launched,
            seconds=seconds,
            next_in=next_in,
        )
    except Exception as problem:
        with lock:
            wheel.failed(environment, clock.monotonic())
            next_in = wheel.next_in(environment, clock.monotonic())
        report = PassReport(
            environment=environment,
            generation=generation,
            plan=None,
            error=explained(problem),
            seconds=clock.monotonic() - began,
            next_in=next_in,
        )
    try:
        host.settled(report)
    except Exception as problem:
        # A host that cannot be told about is still repaired, and told about after another pass.
        with lock:
            wheel.look_again(environment, clock.monotonic())
        threading.excepthook(
            threading.ExceptHookArgs((type(problem), problem, problem.__traceback__, threading.current_thread()))
        )
    finally:
        with lock:
            wheel.end(environment, seconds, clock.monotonic())


def attempt(host: Host, environment: str, step: Step) -> Outcome:
    """The outcome of a step, whatever happens."""
    try:
        return host.run(environment, step)
    except Exception as problem:
        return Outcome(step=step.id, object=step.action.object, result=Result.FAILED, error=explained(problem))


def explained(problem: Exception) -> BangerError:
    """What was raised, as an error that a user can read."""
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
