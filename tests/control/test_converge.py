"""The wheel: how often it turns, and when it stops."""

from __future__ import annotations

from reconciler.control.converge import MOST_PASSES, converge
from reconciler.model.actions import DeleteTap
from reconciler.model.outcome import Outcome, Result
from reconciler.model.plan import Plan, Step

EMPTY = Plan(environment="env")


def plan(name: str) -> Plan:
    return Plan(environment="env", steps=(Step(DeleteTap(name=name, reason="test")),))


class Host:
    """Plays plans back, and notes what was executed."""

    def __init__(self, *later: Plan, result: Result = Result.DONE) -> None:
        self.later = list(later)
        self.result = result
        self.executed: list[str] = []

    def make_plan(self) -> Plan:
        return self.later.pop(0) if self.later else EMPTY

    def execute(self, todo: Plan) -> tuple[Outcome, ...]:
        self.executed += [step.action.name for step in todo.steps]
        return tuple(Outcome(step=s.id, object=s.action.object, result=self.result) for s in todo.steps)


def test_an_empty_plan_executes_nothing_and_looks_no_further() -> None:
    host = Host(plan("never"))
    done = converge(EMPTY, host.make_plan, host.execute)
    assert host.executed == [] and done.outcomes == () and done.left == EMPTY


def test_it_looks_again_until_nothing_is_left() -> None:
    host = Host(plan("b"), EMPTY, plan("never"))
    done = converge(plan("a"), host.make_plan, host.execute)
    assert host.executed == ["a", "b"] and len(done.outcomes) == 2
    assert done.plan == plan("a") and done.left == EMPTY


def test_a_failure_ends_it_after_its_pass() -> None:
    host = Host(plan("b"), result=Result.FAILED)
    done = converge(plan("a"), host.make_plan, host.execute)
    assert host.executed == ["a"] and done.left is None and host.later == [plan("b")]


def test_a_host_that_never_settles_is_given_up_and_reported() -> None:
    host = Host(*(plan(f"v{n}") for n in range(10)))
    done = converge(plan("a"), host.make_plan, host.execute)
    assert len(host.executed) == MOST_PASSES
    assert done.left == plan(f"v{MOST_PASSES - 1}")
