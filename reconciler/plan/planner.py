"""plan(desired, observed) → Plan: the nouns' decisions, put together and ordered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from reconciler.model.actions import Action, DeleteTap, ForgetEnvironment, TrashVm, TrashVolumes
from reconciler.model.addressing import allocate
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, ObservedVm, Unknown
from reconciler.model.plan import Plan
from reconciler.plan.cache import plan_evictions, plan_leftovers
from reconciler.plan.dependencies import blocked, waits
from reconciler.plan.guard import Verdict, weigh
from reconciler.plan.images import plan_images
from reconciler.plan.inside import configure, unreadable
from reconciler.plan.kernels import plan_kernels
from reconciler.plan.networks import plan_networks
from reconciler.plan.order import order
from reconciler.plan.rules import plan_rules
from reconciler.plan.tools import plan_tools
from reconciler.plan.vms import Decision, World, plan_vm


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user allows beyond the ordinary, or that nobody is there to be asked.

    Parameters
    ----------
    unattended: of a controller: a VM that was stopped on purpose, whose `restart` says so, or whose ttl is over, is not
        to run; and `prune`, `max_delete` and `approved` count. Else somebody asked for what the file says.
    prune: whether what is not in the file goes.
    max_delete: the part of the VMs, from 0 to 1, that may go without an approval; None for all.
    approved: the digests (`plan.guard.removal_digest`) of what somebody approved.
    """

    allow_recreate: bool = False
    unattended: bool = False
    prune: bool = True
    max_delete: float | None = None
    approved: frozenset[str] = frozenset()


def plan(desired: DesiredState, observed: ObservedState, options: PlanOptions | None = None) -> Plan:
    """What must be done so that the host is as the file says. Empty for a world that already is (I5)."""
    options = options or PlanOptions()
    addresses, full = _addresses(desired, observed)
    world = World(
        observed=observed,
        networks={**observed.networks, **desired.networks},
        declared=frozenset(desired.networks),
        addresses=addresses,
        full=frozenset(full),
        artifacts=_artifacts(desired, observed),
        unresolved=desired.unresolved,
        allow_recreate=options.allow_recreate,
        volumes=_volumes(observed),
        unattended=options.unattended,
        blocked=unreadable(desired.vms, observed),
    )
    verdict = _judge(desired, world, options)
    world = replace(world, withheld=verdict.withheld)
    kernels, held_kernels = plan_kernels(desired, observed)
    images, held_images = plan_images(desired, observed)
    evictions, held_cache = plan_evictions(desired, observed)
    decisions = _decide(desired, world)
    in_use: dict[str, str] = {}
    for name, decision in decisions.items():
        if decision.keeps:
            in_use.setdefault(decision.keeps, name)
    prune = options.prune or not options.unattended
    networks, held_networks = plan_networks(desired, observed, in_use, prune=prune)
    rules, held_rules = plan_rules(desired.vms, world, decisions, in_use)
    vm_actions = [action for decision in decisions.values() for action in decision.actions]
    vm_held = [held for decision in decisions.values() for held in decision.held]
    actions = [
        *plan_leftovers(observed),
        *evictions,
        *kernels,
        *plan_tools(vm_actions, observed),
        *images,
        *networks,
        *rules,
        *_unused_taps(desired, observed),
        *verdict.steps,
        *vm_actions,
        *configure(decisions, desired.vms, observed),
        *waits(decisions, observed.vms),
    ]
    held = (*held_kernels, *held_images, *held_networks, *held_rules, *vm_held, *held_cache)
    return Plan(environment=desired.environment, steps=order(actions, observed), held=held, approval=verdict.approval)


def plan_removal(observed: ObservedState) -> Plan:
    """What must be done so that nothing of an environment is left but its trash."""
    emptied = plan(DesiredState(environment=observed.environment), observed)
    kept = {held.object for held in emptied.held}
    owners = sorted({volume.vm for volume in observed.volumes} - {name.removeprefix("vm/") for name in kept})
    trashed = {step.action.name for step in emptied.steps if isinstance(step.action, TrashVm)}
    actions: list[Action] = [
        TrashVm(name=s.action.name, reason=s.action.reason, with_volumes=True)
        if isinstance(s.action, TrashVm)
        else s.action
        for s in emptied.steps
    ]
    actions += [TrashVolumes(name=vm, reason="the environment goes") for vm in owners if vm not in trashed]
    if not emptied.held:
        actions.append(ForgetEnvironment(name=observed.environment, reason="you asked to delete it"))
    return Plan(environment=observed.environment, steps=order(actions, observed), held=emptied.held)


def _judge(desired: DesiredState, world: World, options: PlanOptions) -> Verdict:
    """What becomes of the VMs that left the file; without a guard, they go."""
    if not options.unattended:
        return Verdict()
    gone = [plan_vm(name, None, have, world) for name, have in world.observed.vms.items() if name not in desired.vms]
    removals = [action.name for decision in gone for action in decision.actions if isinstance(action, TrashVm)]
    return weigh(
        desired,
        world.observed,
        removals,
        prune=options.prune,
        max_delete=options.max_delete,
        approved=options.approved,
    )


def _decide(desired: DesiredState, world: World) -> dict[str, Decision]:
    """Each VM's decision, in the file's order, then those that are not in it.

    A VM that is held back, or runs on with what it was started with, keeps its address, which may hold back another one
    that asks for it, and so on; and one that does not run holds back those that depend on it. That ends, since each
    round holds back more.
    """
    have = world.observed.vms
    while True:
        decisions = {
            name: plan_vm(name, desired.vms.get(name), have.get(name), world)
            for name in (*desired.vms, *sorted(set(have) - set(desired.vms)))
        }
        kept = {
            where: name
            for name, decision in decisions.items()
            if (decision.held or decision.pending) and name in have
            for where in _places(have[name])
        }
        contested = dict(world.contested)
        for name, vm in desired.vms.items():
            other = kept.get((vm.network, world.addresses.get(name)), name)
            if other != name and not decisions[name].held:
                contested[name] = other
        stuck = {**blocked(decisions, desired.vms, world), **world.blocked}
        if len(contested) == len(world.contested) and len(stuck) == len(world.blocked):
            return decisions
        world = replace(world, contested=contested, blocked=stuck)


def _places(vm: ObservedVm) -> list[tuple[str, IPv4Address | None]]:
    """Network and address that it has, and those that it is to have with its next start."""
    found = [(vm.spec.network, vm.address)] if vm.spec.bridged else []
    return [*found, (vm.network, vm.lease)] if vm.bridged else found


def _volumes(observed: ObservedState) -> dict[str, dict[str, int]]:
    sizes: dict[str, dict[str, int]] = {}
    for volume in observed.volumes:
        sizes.setdefault(volume.vm, {})[volume.name] = volume.size
    return sizes


def _artifacts(desired: DesiredState, observed: ObservedState) -> frozenset[str]:
    declared = {image.id for image in desired.images.values()} | {kernel.id for kernel in desired.kernels.values()}
    cached = [there for there in (observed.images, observed.kernels) if not isinstance(there, Unknown)]
    return frozenset(declared.union(*cached))


def _addresses(desired: DesiredState, observed: ObservedState) -> tuple[dict[str, IPv4Address], list[str]]:
    addresses: dict[str, IPv4Address] = {}
    full: list[str] = []
    for network in desired.networks.values():
        mine = [vm for vm in desired.vms.values() if vm.network == network.name]
        held = {
            vm.name: vm.address
            for vm in observed.vms.values()
            if vm.address is not None and vm.spec.network == network.name
        }
        # A space is in no name: these are nobody's to keep, and not to be handed out while they are in use.
        held |= {
            f"{vm.name} now": vm.lease
            for vm in observed.vms.values()
            if vm.lease is not None and vm.network == network.name and vm.lease != vm.address
        }
        given, without = allocate(network, mine, held)
        addresses |= given
        full += without
    return addresses, full


def _unused_taps(desired: DesiredState, observed: ObservedState) -> list[Action]:
    """Taps of VMs that are neither wanted nor there: their making was interrupted."""
    if isinstance(observed.taps, Unknown):
        return []
    orphans = sorted(set(observed.taps) - set(desired.vms) - set(observed.vms))
    return [DeleteTap(name=name, reason="no vm of that name exists") for name in orphans]
