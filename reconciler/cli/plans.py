"""A plan for people: grouped by kind, each step with its reasons and its price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from reconciler.cli.terminal import harmless
from reconciler.model.changes import ChangeClass
from reconciler.model.nouns import Noun
from reconciler.model.plan import Held, Plan, Step

_TITLES: Mapping[Noun, str] = {
    Noun.KERNEL: "kernels",
    Noun.IMAGE: "images",
    Noun.NETWORK: "networks",
    Noun.VM: "vms",
    Noun.VOLUME: "volumes",
    Noun.CACHE: "cache",
    Noun.ENVIRONMENT: "environment",
}
_ADDS = frozenset({"fetch", "build", "ensure", "connect", "create", "start", "restore"})
_TAKES = frozenset({"delete", "disconnect", "stop", "trash", "kill", "sweep", "evict", "forget"})


def text(plan: Plan) -> str:
    """The whole plan; styled, for `terminal.put` or `terminal.say`."""
    if plan.empty:
        return f"environment {plan.environment}: nothing to do"
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    yield click.style(f"environment {plan.environment}", bold=True)
    for noun, title in _TITLES.items():
        steps = [step for step in plan.steps if step.action.noun is noun]
        if steps:
            yield f"\n{click.style(title, bold=True)}"
        told = ""
        for step in steps:
            yield from _step(step, told)
            told = step.action.reason
    if plan.held:
        yield f"\n{click.style('held back', bold=True)}"
        for held in plan.held:
            yield from held_lines(held)
    yield f"\n{plan.summary()}"


def _step(step: Step, told: str) -> Iterator[str]:
    action = step.action
    mark, colour = _mark(step)
    price = f"  [{action.change_class}]" if action.change_class.disruptive else ""
    yield click.style(f"  {mark} {harmless(action.describe())}", fg=colour) + click.style(price, fg=colour, bold=True)
    if action.reason == told:
        return  # a restart is two steps for one reason
    # A reason holds one change per `; `: one below the other they can be compared.
    for reason in harmless(action.reason).split("; "):
        if reason:
            yield click.style(f"      {reason}", dim=True)


def _mark(step: Step) -> tuple[str, str]:
    action = step.action
    if action.change_class is ChangeClass.RECREATE:
        return "±", "red"
    if action.change_class is ChangeClass.RESTART:
        return "~", "yellow"
    if action.verb in _TAKES:
        return "-", "red"
    return ("+", "green") if action.verb in _ADDS else ("~", "cyan")


def held_lines(held: Held) -> Iterator[str]:
    """What is held back, and what releases it."""
    yield click.style(f"  ! {held.object}: {harmless(held.reason)}", fg="magenta")
    yield click.style(f"      {harmless(held.release)}", dim=True)
