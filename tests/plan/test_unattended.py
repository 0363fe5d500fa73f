"""What a controller may do by itself, over arbitrary worlds: it keeps on converging, and takes little away."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import actions as a
from reconciler.model.desired import DesiredState
from reconciler.model.observed import Ended, ObservedState, ObservedVm, Unknown
from reconciler.model.plan import Plan
from reconciler.model.vm import DependsOn, OnChange, RestartPolicy, RunState
from reconciler.plan import PlanOptions, plan
from tests.fakes import host as fakes
from tests.fakes.world import RefusedError, World
from tests.plan.strategies import TTL, desired_states, observed_states
from tests.plan.test_properties import many, settle

MOST_STEPS = 200


def unattended(desired: DesiredState, approved: frozenset[str] = frozenset()) -> PlanOptions:
    return PlanOptions(
        unattended=True,
        prune=desired.controller.prune,
        max_delete=desired.controller.max_delete,
        approved=approved,
    )


def turn(desired: DesiredState, world: World, options: PlanOptions, data: st.DataObject) -> Plan:
    """Converges as a controller does: one step of those that wait for nothing, then everything is looked at again.

    What the host refuses is tried no second time in a row; returns the plan that has nothing else left.
    """
    refused: set[str] = set()
    for _ in range(MOST_STEPS):
        todo = plan(desired, world.state, options)
        ids = {step.id for step in todo.steps}
        frontier = [s for s in todo.steps if not ids & set(s.needs) and s.id not in refused]
        if not frontier:
            return todo
        step = data.draw(st.sampled_from(frontier))
        before = world.state
        check_order(step.action, before)
        try:
            world.apply(step.action)
        except RefusedError:
            refused.add(step.id)
        else:
            refused.clear()
            assert world.state != before, f"{step.action.describe()} ({step.action.reason}) changed nothing"
    raise AssertionError(f"no end after {MOST_STEPS} steps: {[s.action.describe() for s in todo.steps]}")


def check_order(action: a.Action, state: ObservedState) -> None:
    if not isinstance(action, a.StartVm):
        return
    for dependency in action.vm.depends_on:
        have = state.vms.get(dependency.vm)
        if have is not None and not circular(action.name, dependency.vm, state):
            assert have.running, f"{action.name} starts before {dependency.vm}"
            assert dependency.on is DependsOn.STARTED or have.ready_at is not None


def circular(name: str, other: str, state: ObservedState) -> bool:
    """Only VMs that keep old settings can depend on each other."""
    todo, seen = [other], set[str]()
    while todo:
        here = todo.pop()
        if here == name:
            return True
        if here not in seen and here in state.vms:
            seen.add(here)
            todo += [d.vm for d in state.vms[here].spec.depends_on]
    return False


def may_rest(want_restart: RestartPolicy, have: ObservedVm) -> bool:
    if have.halted is not None:
        return True
    never = want_restart is RestartPolicy.NEVER and have.ended in (Ended.POWEROFF, Ended.FAILED)
    return never or (want_restart is RestartPolicy.ON_FAILURE and have.ended is Ended.POWEROFF)


@many
@given(desired_states(), observed_states(), st.data())
def test_step_by_step_it_comes_to_rest(desired: DesiredState, observed: ObservedState, data: st.DataObject) -> None:
    """I1, I5: every pass acts on what it sees, and the last one has nothing to do."""
    world = World(observed)
    left = turn(desired, world, unattended(desired), data)
    held = {h.object for h in left.held}
    if left.steps:
        return  # what the host refuses, and what needs that
    for vm in desired.vms.values():
        if f"vm/{vm.name}" in held:
            continue
        have = world.state.vms[vm.name]
        assert have.spec == vm
        if vm.state is RunState.STOPPED:
            assert not have.running
        elif not have.running:
            assert may_rest(vm.restart, have), f"{vm.name} should run"
        else:
            assert have.halted is None
            assert vm.ttl is None or (have.uptime or 0.0) < vm.ttl


@many
@given(desired_states(), observed_states(), st.data())
def test_one_that_never_answers_delays_only_its_dependents(
    desired: DesiredState, observed: ObservedState, data: st.DataObject
) -> None:
    """I7."""
    if not desired.vms:
        return
    world = World(observed)
    silent = data.draw(st.sampled_from(sorted(desired.vms)))
    world.silent = {silent}
    left = turn(desired, world, unattended(desired), data)
    waiting = {step.action.name for step in left.steps if isinstance(step.action, a.StartVm)}
    needs = {name: {d.vm for d in vm.depends_on} for name, vm in desired.vms.items()}
    for step in left.steps:
        if isinstance(step.action, a.AwaitReady) and not step.needs:
            assert step.action.name == silent
    if left.steps and all(isinstance(s.action, (a.AwaitReady, a.StartVm, a.EnsureTap)) for s in left.steps):
        for name in waiting & set(needs):
            spec = world.state.vms[name].spec if name in world.state.vms else desired.vms[name]
            theirs = needs[name] | {d.vm for d in spec.depends_on}
            assert theirs & (waiting | {silent}), f"{name} waits for nothing that is late"


@many
@given(desired_states(), observed_states(), st.data())
def test_no_more_goes_than_may_go_unasked(desired: DesiredState, observed: ObservedState, data: st.DataObject) -> None:
    """I2."""
    world = World(observed)
    first = plan(desired, observed, unattended(desired))
    left = turn(desired, world, unattended(desired), data)
    limit = desired.controller.max_delete * len(observed.vms)
    gone = {vm.name for vm in world.trash} & set(observed.vms)
    assert len(gone) <= limit
    assert not gone & set(desired.vms)
    if not desired.controller.prune:
        assert not world.trash
        assert not any(isinstance(step.action, a.DeleteBridge) for step in first.steps)
    withheld = [h for h in left.held if h.release.startswith("`banger approve ")]
    assert {h.release for h in withheld} == ({f"`banger approve {left.approval}`"} if withheld else set())
    for held in withheld:
        name = held.object.removeprefix("vm/")
        before, after = observed.vms[name], world.state.vms[name]
        overdue = before.spec.ttl is not None and before.uptime == 2 * TTL
        assert after.running or not before.running or overdue or before.halted, f"{name} was stopped"


@many
@given(desired_states(), observed_states(), st.data())
def test_an_approval_holds_until_the_last_of_them_is_gone(
    desired: DesiredState, observed: ObservedState, data: st.DataObject
) -> None:
    waiting = plan(desired, observed, unattended(desired))
    if waiting.approval is None:
        return
    names = {h.object.removeprefix("vm/") for h in waiting.held if "banger approve" in h.release}
    world = World(observed)
    given_ = frozenset({waiting.approval})
    told = plan(desired, observed, unattended(desired, given_))
    (note,) = [step for step in told.steps if isinstance(step.action, a.ApproveRemoval)]
    for step in told.steps:
        if isinstance(step.action, (a.StopVm, a.TrashVm)) and step.action.name in names:
            assert note.id in step.needs
    world.apply(note.action)
    # The approval itself is forgotten from here on: it was used.
    turn(desired, world, unattended(desired), data)
    assert not names & set(world.state.vms)


@many
@given(desired_states(), desired_states(), observed_states())
def test_an_approval_is_for_one_file(desired: DesiredState, other: DesiredState, observed: ObservedState) -> None:
    waiting = plan(desired, observed, unattended(desired))
    if waiting.approval is None or desired == other:
        return
    given_ = frozenset({waiting.approval})
    assert not any(
        isinstance(step.action, a.ApproveRemoval) for step in plan(other, observed, unattended(other, given_)).steps
    )
    world = World(observed)
    told = plan(desired, observed, unattended(desired, given_))
    world.apply(next(step.action for step in told.steps if isinstance(step.action, a.ApproveRemoval)))
    after = plan(other, world.state, unattended(other))
    before = plan(other, observed, unattended(other))
    assert (after.held, after.approval) == (before.held, before.approval)


@many
@given(desired_states(), observed_states())
def test_what_depends_on_another_is_stopped_first(desired: DesiredState, observed: ObservedState) -> None:
    todo = plan(desired, observed, PlanOptions(allow_recreate=True))
    stops = {step.action.name: step for step in todo.steps if isinstance(step.action, a.StopVm)}
    place = {step.id: number for number, step in enumerate(todo.steps)}
    starting = {step.action.name for step in todo.steps if isinstance(step.action, a.StartVm)}
    for name, step in stops.items():
        spec = observed.vms[name].spec if name not in starting else desired.vms.get(name, observed.vms[name].spec)
        for dependency in spec.depends_on:
            if dependency.vm in stops and not circular(name, dependency.vm, observed):
                assert place[step.id] < place[stops[dependency.vm].id]


@many
@given(desired_states(), observed_states())
def test_somebody_who_asks_gets_what_the_file_says(desired: DesiredState, observed: ObservedState) -> None:
    """Neither `restart`, ttl nor an earlier stop by hand counts for an apply."""
    forgetful = replace(
        observed,
        vms={n: replace(vm, halted=None, ended=None, uptime=0.0) for n, vm in observed.vms.items()},
    )
    first, second = plan(desired, observed), plan(desired, forgetful)
    released = {s.id for s in first.steps if isinstance(s.action, a.UpdateVm) and s.action.release}
    assert {s.id for s in first.steps} - released <= {s.id for s in second.steps}
    assert {s.id for s in second.steps} <= {s.id for s in first.steps}
    world = World(observed)
    left = settle(world, desired, PlanOptions())
    held = {h.object for h in left.held}
    if not left.steps:
        running = [n for n, vm in desired.vms.items() if vm.state is RunState.RUNNING and f"vm/{n}" not in held]
        assert all(world.state.vms[name].running and world.state.vms[name].halted is None for name in running)
        # And the controller leaves it so.
        later = plan(desired, world.state, unattended(desired))
        assert not [s for s in later.steps if is_start_or_stop(s.action) and s.action.object not in held]


def is_start_or_stop(action: a.Action) -> bool:
    return isinstance(action, a.StartVm) or (isinstance(action, a.StopVm) and "ttl" not in action.reason)


@many
@given(desired_states(), observed_states())
def test_unknown_is_not_absent_for_a_controller_either(desired: DesiredState, observed: ObservedState) -> None:
    """I4."""
    blind = replace(observed, processes=Unknown("denied"))
    for step in plan(desired, blind, unattended(desired)).steps:
        assert not isinstance(step.action, (a.StartVm, a.StopVm, a.TrashVm, a.CreateVm, a.AwaitReady))


def test_an_address_that_a_guest_still_uses_is_nobody_else_s() -> None:
    """Though it is to have another one with its next start, and that is recorded already."""
    lab = fakes.network("lab", "172.30.7.0/29")
    later = OnChange.NEXT_START
    world = World(ObservedState(install="install", environment="env"))
    for state in (
        fakes.desired(fakes.vm("dev", network="lab", on_change=later), networks=[lab]),
        fakes.desired(fakes.vm("dev", network="none", on_change=later), networks=[lab]),
    ):
        settle(world, state, PlanOptions())
    dev = world.state.vms["dev"]
    assert (dev.spec.network, dev.address, dev.network, str(dev.lease)) == ("none", None, "lab", "172.30.7.2")
    more = fakes.desired(
        fakes.vm("dev", network="none", on_change=later), fakes.vm("new", network="lab"), networks=[lab]
    )
    settle(world, more, PlanOptions())
    assert str(world.state.vms["new"].address) == "172.30.7.3"
