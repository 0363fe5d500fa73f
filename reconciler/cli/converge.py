"""What `apply` and `delete` share: asking before, and telling what became of it after."""

from __future__ import annotations

import sys

import click

from reconciler.api.service import ApplyResult, Approve
from reconciler.cli import failures, plans
from reconciler.cli.terminal import asks, harmless, say
from reconciler.lib.errors import NotReadyError
from reconciler.model.outcome import Result
from reconciler.model.plan import Plan

DONE, FAILED = 0, 1


def approval(*, yes: bool, quiet: bool) -> Approve:
    """Asks on a terminal before a plan that stops, recreates or takes something away.

    Without a terminal, or with `yes`, the command itself is the consent.
    """

    def approve(plan: Plan) -> bool:
        if yes or not plan.disruptive or not asks():
            if plan.steps and not quiet:
                say(f"environment {plan.environment}: {plan.summary()}")
            return True
        say(plans.text(plan))
        return click.confirm("\nGo ahead?", default=False, err=True)

    return approve


def conclude(result: ApplyResult) -> int:
    """Tells failures, what is held back and what is not ready, on stderr; returns the exit code."""
    if not result.approved:
        say("nothing was done")
        return FAILED
    for outcome in result.outcomes:
        if outcome.result is Result.FAILED and outcome.error is not None:
            failures.show(outcome.error, what=f"banger: {outcome.step} failed")
    skipped = [outcome for outcome in result.outcomes if outcome.result is Result.SKIPPED]
    for outcome in skipped:
        say(f"banger: {outcome.step} was not tried: it needs {outcome.blocked_by or 'what failed'}")
    for held in result.plan.held:
        say(f"banger: held back: {held.object}: {harmless(held.reason)}", fg="magenta")
        say(f"  hint: {harmless(held.release)}", fg="yellow")
    for vm in result.not_ready:
        message = harmless(vm.message) or f"it is {vm.state}"
        say(f"banger: vm {vm.name} is not ready: {message}", fg="red")
        say(f"  hint: banger logs {vm.environment}/{vm.name}", fg="yellow")
    if result.failed or any(not held.advisory for held in result.plan.held):
        return FAILED
    if any(outcome.result is Result.CANCELLED for outcome in result.outcomes):
        say("banger: interrupted; the next apply goes on from here")
        return 130
    return NotReadyError.exit_code if result.not_ready else DONE


def finish(code: int) -> None:
    """Ends the command with an exit code."""
    if code:
        sys.stdout.flush()
        raise click.exceptions.Exit(code)
