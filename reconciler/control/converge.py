"""From a desired state to a host that has it: observe, plan, execute, until a plan is empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.model.outcome import Outcome
from reconciler.model.plan import Plan

MOST_PASSES = 3
"""Execution reaches a fixed point in at most this many passes; more would mean that somebody undoes our work."""

MakePlan = Callable[[], Plan]
Execute = Callable[[Plan], tuple[Outcome, ...]]


@dataclass(frozen=True, slots=True)
class Convergence:
    """What was planned first, how every step of every pass ended, and what the last look still asked for.

    `left` has no steps if the host is as planned; it is None if nobody looked again, because something failed.
    """

    plan: Plan
    outcomes: tuple[Outcome, ...]
    left: Plan | None


def converge(first: Plan, make_plan: MakePlan, execute: Execute) -> Convergence:
    """Executes `first`, then looks again.

    A pass in which something failed is the last one: the failure is reported instead of being tried a
    second time, and everything that did not depend on it has been done.
    """
    outcomes: list[Outcome] = []
    plan = first
    for _ in range(MOST_PASSES):
        if not plan.steps:
            break
        ended = execute(plan)
        outcomes += ended
        if any(not outcome.result.ok for outcome in ended):
            return Convergence(first, tuple(outcomes), None)
        plan = make_plan()
    return Convergence(first, tuple(outcomes), plan)
