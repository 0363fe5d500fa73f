"""What the controller knows of an object beyond what is observed: what it is doing, what failed, what it holds back.

Computed from the last pass each time it is asked for. Only *since when* is remembered, which no look at the host
could tell; it is written when a condition changes, and not otherwise (I5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from reconciler.control.reconciler import Trouble
from reconciler.lib.units import format_duration
from reconciler.model.plan import Held, Plan
from reconciler.model.status import Condition, ConditionType, ObjectStatus
from reconciler.store.control import ControlState, Pauses

Extra = dict[str, list[Condition]]
"""Object → its conditions, `Ready` aside."""


def of_environment(plan: Plan | None, troubles: Mapping[str, Trouble], pauses: Pauses) -> Extra:
    """The conditions of every object that has any.

    Parameters
    ----------
    plan: the last pass's, or None if there was none yet.
    troubles: what fails or is in flight, by object.
    """
    found: Extra = {}

    def add(target: str, condition: Condition) -> None:
        found.setdefault(target, []).append(condition)

    for name, trouble in troubles.items():
        for condition in _of_trouble(trouble):
            add(name, condition)
    steps = plan.steps if plan is not None else ()
    for target in dict.fromkeys(step.action.object for step in steps):
        if target not in troubles:
            first = next(step.action for step in steps if step.action.object == target)
            add(target, _true(ConditionType.PROGRESSING, "Planned", f"to do: {first.describe()} ({first.reason})"))
    for held in plan.held if plan is not None else ():
        kind, reason = (
            (ConditionType.CACHE_PRESSURE, "Full") if held.advisory else (ConditionType.HELD, "NeedsDecision")
        )
        add(held.object, _true(kind, reason, _words(held)))
    if plan is not None and pauses.environment:
        add(f"environment/{plan.environment}", _true(ConditionType.HELD, "Paused", "paused; `banger resume`"))
    for name in sorted(pauses.vms):
        add(f"vm/{name}", _true(ConditionType.HELD, "Paused", f"paused; `banger resume {name}`"))
    return found


def _of_trouble(trouble: Trouble) -> Iterable[Condition]:
    if trouble.in_flight is not None:
        yield _true(ConditionType.PROGRESSING, "InFlight", f"{trouble.in_flight} is under way")
    elif trouble.contended:
        yield _true(
            ConditionType.CONTENDED,
            "UndoneAgain",
            "something keeps undoing what is repaired; end that, then `banger resume`",
        )
    elif trouble.retry_in is not None:
        when = format_duration(max(1, round(trouble.retry_in)))
        tried = f"{trouble.attempts} attempt{'s' if trouble.attempts != 1 else ''}"
        yield _true(ConditionType.PROGRESSING, "WaitingToRetry", f"next try in {when}, after {tried}")
    if trouble.error is not None:
        yield _true(ConditionType.DEGRADED, "Failed", trouble.error.cause)


def _words(held: Held) -> str:
    return f"{held.reason}; {held.release}"


def _true(kind: ConditionType, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=True, reason=reason, message=message)


def told(status: ObjectStatus, extra: Extra, since: Mapping[tuple[str, str], tuple[str, float]]) -> ObjectStatus:
    """An observed status with the controller's conditions, and since when each holds."""
    name = f"{status.kind}/{status.name}"
    conditions = []
    for condition in (*status.conditions, *extra.get(name, ())):
        known, when = since.get((name, condition.type.value), ("", 0.0))
        dated = dataclasses.replace(condition, since=when) if known == word(condition) else condition
        conditions.append(dated)
    return dataclasses.replace(status, conditions=tuple(conditions))


def word(condition: Condition) -> str:
    """What counts as the same state of a condition: its status and reason, not its words."""
    return f"{condition.status}/{condition.reason}"


def remember(control: ControlState, environment: str, extra: Extra, now: float) -> list[tuple[str, Condition]]:
    """Stores the transitions to and from `extra`; returns those conditions that are new, with their objects."""
    before = {key: state for key, (state, _) in control.transitions(environment).items() if key[1] in _REMEMBERED}
    current = {(name, c.type.value): c for name, conditions in extra.items() for c in conditions}
    new = []
    for key, condition in current.items():
        if key[1] in _REMEMBERED and before.get(key) != word(condition):
            control.transition(environment, *key, word(condition), now)
            new.append((key[0], condition))
    for key, state in before.items():
        if key not in current and state != _GONE:
            control.transition(environment, *key, _GONE, now)
    return new


# `Progressing` comes and goes with every step; the events tell that story, and a row for each would be a write.
_REMEMBERED = frozenset(
    {ConditionType.DEGRADED, ConditionType.HELD, ConditionType.CONTENDED, ConditionType.CACHE_PRESSURE}
)
_GONE = "False/"
