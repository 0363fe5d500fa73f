"""The invariants of planning, over arbitrary worlds: fixed point, idempotence, isolation, ownership."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.model import actions as a
from reconciler.model.desired import DesiredState
from reconciler.model.nouns import Noun
from reconciler.model.observed import ObservedState, ObservedVm, Unknown
from reconciler.model.outcome import Result
from reconciler.model.plan import Plan
from reconciler.model.vm import NO_NETWORK, USER_NETWORK, RunState
from reconciler.plan import PlanOptions, plan, plan_removal
from tests.fakes.world import World
from tests.plan.strategies import desired_states, observed_states

# `BANGER_EXAMPLES=10000` runs each property as often as that.
EXAMPLES = int(os.environ.get("BANGER_EXAMPLES", "75"))
SHARDS = 4  # for as many processes
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
RECREATE = PlanOptions(allow_recreate=True)
PASSES = 3


def settle(world: World, desired: DesiredState, options: PlanOptions) -> Plan:
    """What is left after as many passes as an apply makes. Only what the host refuses, and what needs that, may be."""
    for _ in range(PASSES):
        todo = plan(desired, world.state, options)
        if not todo.steps:
            return todo
        world.run(todo)
    left = plan(desired, world.state, options)
    stuck = World(world.state).run(left)
    assert Result.DONE not in stuck.values(), [f"{s.action.describe()}: {s.action.reason}" for s in left.steps]
    return left


@pytest.mark.parametrize("shard", range(SHARDS))
@settings(many, max_examples=EXAMPLES // SHARDS)
@given(desired_states(), observed_states(), st.booleans())
def test_execution_reaches_a_fixed_point_in_three_passes(
    shard: int, desired: DesiredState, observed: ObservedState, recreate: bool
) -> None:
    """I5, I6."""
    world = World(observed)
    left = settle(world, desired, PlanOptions(allow_recreate=recreate))
    held = {h.object for h in left.held}
    if not left.steps:
        for vm in desired.vms.values():
            if f"vm/{vm.name}" not in held:
                have = world.state.vms[vm.name]
                assert have.spec == vm
                assert have.running == (vm.state is RunState.RUNNING)
                if have.running and have.network != NO_NETWORK:
                    assert bool(have.booted.get("files")) == bool(vm.files)
                    assert bool(have.booted.get("env")) == bool(vm.env)
                    assert bool(have.booted.get("secrets")) == bool(vm.secrets)
                    assert not vm.provision or have.booted["provision"]
                if have.running and have.network == USER_NETWORK:
                    assert have.booted.get("ports", "") == " ".join(map(str, vm.ports))
        assert_nothing_is_left_over(desired, world.state, held)
    assert_no_address_is_used_twice(world.state)
    assert_rules_know_who_runs(world, held)


def assert_rules_know_who_runs(world: World, held: set[str]) -> None:
    """As far as they were loaded here, by whatever VM is on the network, held back or not."""
    for vm in world.state.vms.values():
        rules = world.loaded.get(vm.network)
        if vm.running and rules is not None and vm.lease in rules.cidr:
            assert (vm.name, vm.lease) in {(member.vm, member.address) for member in rules.vms}
            if f"vm/{vm.name}" not in held:
                mine = {port.host_port for port in rules.ports if port.vm == vm.name}
                assert mine == {port.host_port for port in vm.spec.ports} or any("network/" in h for h in held)


def assert_nothing_is_left_over(desired: DesiredState, state: ObservedState, held: set[str]) -> None:
    assert not isinstance(state.bridges, Unknown) and not isinstance(state.taps, Unknown)
    assert {n for n in state.vms if f"vm/{n}" not in held} <= set(desired.vms)
    gone = {f"network/{n}" for n in (*state.bridges, *state.networks)} & held - {
        f"network/{n}" for n in desired.networks
    }
    assert {n for n in state.bridges if f"network/{n}" not in gone} == set(desired.networks)
    assert not isinstance(state.rules, Unknown)
    assert {n for n in state.rules if f"network/{n}" not in gone} == set(desired.networks)
    assert all(state.rules[n].intact for n in desired.networks)
    # What a VM runs with counts: with `onChange: next-start` that is not yet what its spec says.
    unbridged = (None, USER_NETWORK, NO_NETWORK)
    bridged = {vm.name for vm in state.vms.values() if vm.running and vm.booted.get("network") not in unbridged}
    assert {name for name in state.taps if f"vm/{name}" not in held} <= bridged
    assert not state.strays and not state.corpses


def assert_no_address_is_used_twice(state: ObservedState) -> None:
    running = [(vm.spec.network, vm.booted.get("address")) for vm in state.vms.values() if vm.running]
    in_use = [(network, address) for network, address in running if address]
    assert len(in_use) == len(set(in_use))


@many
@given(desired_states(), observed_states(), st.booleans(), st.data())
def test_a_failing_step_delays_only_its_dependents_and_loses_nothing(
    desired: DesiredState, observed: ObservedState, recreate: bool, data: st.DataObject
) -> None:
    """I7, I12."""
    options = PlanOptions(allow_recreate=recreate)
    first = plan(desired, observed, options)
    if not first.steps:
        return
    broken = frozenset({data.draw(st.sampled_from([step.id for step in first.steps]))})
    world = World(observed)
    results = world.run(first, fail=broken)
    for step in first.steps:
        if results[step.id] is Result.SKIPPED:
            assert any(results[need] is not Result.DONE for need in step.needs)
    settle(world, desired, options)
    after = {vm.id for vm in world.state.vms.values()} | {vm.id for vm in world.trash}
    # Disks move to the trash or stay; a VM whose disk was gone already has nothing to lose.
    assert {vm.id for vm in observed.vms.values() if vm.disk} <= after
    kept = {(v.vm, v.name) for v in world.state.volumes} | {(v.vm, v.name) for v in world.trashed_volumes}
    assert {(v.vm, v.name) for v in observed.volumes} <= kept


@many
@given(desired_states(), observed_states())
def test_a_failed_build_or_bridge_costs_nobody_a_running_vm(desired: DesiredState, observed: ObservedState) -> None:
    todo = plan(desired, observed, RECREATE)
    prepared = (a.FetchKernel, a.FetchTools, a.BuildImage)
    world = World(observed)
    world.run(todo, fail=frozenset(step.id for step in todo.steps if isinstance(step.action, prepared)))
    for name, vm in desired.vms.items():
        have = observed.vms.get(name)
        needs_build = vm.image_id not in _known(observed.images) or vm.kernel_id not in _known(observed.kernels)
        if have is not None and have.running and vm.state is RunState.RUNNING and needs_build:
            assert world.state.vms[name].running, f"{name} was stopped for something that could not be built"


def _known(part: frozenset[str] | Unknown) -> frozenset[str]:
    return frozenset() if isinstance(part, Unknown) else part


@many
@given(desired_states(), observed_states(), st.booleans())
def test_what_is_held_is_not_touched(desired: DesiredState, observed: ObservedState, recreate: bool) -> None:
    """I10: also a protected VM whose block is gone."""
    todo = plan(desired, observed, PlanOptions(allow_recreate=recreate))
    held = {h.object for h in todo.held}
    harmless = (a.StartVm, a.AwaitReady, a.EnsureTap, a.EnsureBridge, a.EnsureRules)  # what a VM may have as it is
    for step in todo.steps:
        assert step.action.object not in held or isinstance(step.action, harmless), step.action.describe()
    protected = {n for n, vm in observed.vms.items() if vm.spec.protect and n not in desired.vms}
    assert {f"vm/{name}" for name in protected} <= held
    assert not protected & {s.action.name for s in todo.steps if s.action.noun is Noun.VM}
    gone = [s.action for s in todo.steps if isinstance(s.action, a.TrashVm) and s.action.name in desired.vms]
    assert not [action for action in gone if desired.vms[action.name].protect or not recreate]


BLIND = Unknown("denied")


def _bridged(*vms: ObservedVm | None) -> bool:
    return any(vm is not None and vm.spec.bridged for vm in vms)


@many
@given(
    desired_states(),
    observed_states(),
    st.sampled_from(["processes", "bridges", "taps", "rules", "images", "kernels", "tools"]),
)
def test_unknown_is_not_absent(desired: DesiredState, observed: ObservedState, part: str) -> None:
    """I4, for each part alone."""
    blind: ObservedState = replace(observed, **{part: BLIND})  # type: ignore[arg-type]
    todo = plan(desired, blind, RECREATE)
    for action in (step.action for step in todo.steps):
        match part, action:
            case "processes", a.DeleteBridge():
                assert action.name not in {vm.spec.network for vm in observed.vms.values()}
            case "processes", a.EnsureRules():
                raise AssertionError("who runs with which address is not known")
            case "processes", _:
                assert action.noun is not Noun.VM or isinstance(action, (a.KillStray, a.DeleteTap))
                assert (
                    action.name not in observed.vms and action.name not in desired.vms
                ) or action.noun is not Noun.VM
            case "bridges" | "taps" | "rules", a.EnsureBridge() | a.EnsureRules() | a.DeleteBridge():
                assert part == "taps"
            case "bridges" | "taps" | "rules", a.AwaitReady() | a.KillStray():
                pass  # neither is about links
            case "rules", a.DeleteTap():
                # Of a VM that is nowhere: what is left of a VM needs no rules.
                assert (action.name not in observed.vms and action.name not in desired.vms) or not _bridged(
                    observed.vms.get(action.name)
                )
            case "bridges" | "taps" | "rules", _ if action.noun is Noun.VM:
                want = desired.vms.get(action.name)
                assert not (want and want.bridged) and not _bridged(observed.vms.get(action.name))
            case "images" | "kernels" | "tools", a.CreateVm() | a.BuildImage() | a.FetchKernel() | a.FetchTools():
                assert not isinstance(
                    action, {"images": a.BuildImage, "kernels": a.FetchKernel, "tools": a.FetchTools}[part]
                )
                assert not isinstance(action, a.CreateVm)
            case "images" | "kernels" | "tools", a.StopVm():
                assert not action.restart
            case "images" | "kernels" | "tools", a.TrashVm():
                assert action.name not in desired.vms
    assert not isinstance(part, Unknown)


@many
@given(observed_states())
def test_removal_leaves_only_trash_unless_something_is_protected(observed: ObservedState) -> None:
    world = World(observed)
    todo = plan_removal(observed)
    if todo.held:
        assert not any(isinstance(step.action, a.ForgetEnvironment) for step in todo.steps)
        assert any(vm.spec.protect for vm in observed.vms.values())
        return
    world.run(todo)
    state = world.state
    assert (
        not state.vms
        and not state.bridges
        and not state.taps
        and not state.rules
        and not state.volumes
        and not state.networks
    )
    assert {vm.id for vm in observed.vms.values()} == {vm.id for vm in world.trash}
    assert {(v.vm, v.name) for v in observed.volumes} == {(v.vm, v.name) for v in world.trashed_volumes}
    assert isinstance(todo.steps[-1].action, a.ForgetEnvironment)


@many
@given(desired_states(), observed_states())
def test_planning_is_a_pure_function(desired: DesiredState, observed: ObservedState) -> None:
    first, second = plan(desired, observed, RECREATE), plan(desired, observed, RECREATE)
    assert first == second
    assert first.fingerprint == second.fingerprint
    assert len({step.id for step in first.steps}) == len(first.steps)
    place = {step.id: number for number, step in enumerate(first.steps)}
    for step in first.steps:
        assert a.action_from_json(step.action.to_json()) == step.action
        assert all(place[need] < place[step.id] for need in step.needs)


@many
@given(desired_states(), observed_states())
def test_the_order_of_the_file_changes_no_vm(desired: DesiredState, observed: ObservedState) -> None:
    """But which free address a new VM gets."""
    shuffled = replace(desired, vms=dict(reversed(desired.vms.items())))
    first, second = plan(desired, observed, RECREATE), plan(shuffled, observed, RECREATE)
    if not any("no free address" in h.reason for h in (*first.held, *second.held)):
        assert {s.id for s in first.steps} == {s.id for s in second.steps}
