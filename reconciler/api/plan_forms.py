"""Plans and what became of them, as JSON and back (schemas/plan.schema.json)."""

from __future__ import annotations

from typing import Any

from reconciler.api.forms import status_from
from reconciler.api.problems import from_problem, to_problem
from reconciler.api.service import ApplyResult
from reconciler.model.actions import action_from_json
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Held, Plan, Step


def step_to(step: Step) -> dict[str, Any]:
    return {**step.action.to_json(), "needs": list(step.needs)}


def step_from(data: dict[str, Any]) -> Step:
    rest = dict(data)
    needs = tuple(rest.pop("needs"))
    return Step(action_from_json(rest), needs)


def plan_from(data: dict[str, Any]) -> Plan:
    """The inverse of `Plan.to_json`. ValueError if it has another meaning here than where it was made."""
    plan = Plan(
        environment=data["environment"],
        steps=tuple(map(step_from, data["steps"])),
        held=tuple(Held(**held) for held in data["held"]),
        approval=data["approval"],
    )
    if plan.fingerprint != data["fingerprint"]:
        raise ValueError("the plan has another fingerprint")
    return plan


def outcome_to(outcome: Outcome) -> dict[str, Any]:
    return {
        "step": outcome.step,
        "object": outcome.object,
        "result": outcome.result.value,
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "error": None if outcome.error is None else to_problem(outcome.error),
        "blockedBy": outcome.blocked_by,
    }


def outcome_from(data: dict[str, Any]) -> Outcome:
    return Outcome(
        step=data["step"],
        object=data["object"],
        result=Result(data["result"]),
        seconds=data["seconds"],
        attempts=data["attempts"],
        error=None if data["error"] is None else from_problem(data["error"]),
        blocked_by=data["blockedBy"],
    )


def result_to(result: ApplyResult) -> dict[str, Any]:
    return {
        "plan": result.plan.to_json(),
        "outcomes": [outcome_to(outcome) for outcome in result.outcomes],
        "notReady": [status.to_json() for status in result.not_ready],
        "approved": result.approved,
    }


def result_from(data: dict[str, Any]) -> ApplyResult:
    return ApplyResult(
        plan=plan_from(data["plan"]),
        outcomes=tuple(map(outcome_from, data["outcomes"])),
        not_ready=tuple(map(status_from, data["notReady"])),
        approved=data["approved"],
    )
