"""VMs: the decision for one of them, from what the file wants and what the host shows.

The order of the questions is the order of their weight: may it be touched at all, is there a disk, would
data be lost, must it be recreated, must it restart, does it run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from reconciler.model.actions import (
    Action,
    CreateVm,
    DeleteTap,
    EnsureTap,
    PublishPorts,
    ShipWorkspace,
    StartVm,
    StopVm,
    TrashVm,
    UpdateVm,
)
from reconciler.model.changes import (
    Change,
    ChangeClass,
    boot_facts,
    compare,
    creation_facts,
    published,
    refusals,
    restarts,
    shrunk,
    spec_key,
)
from reconciler.model.observed import ObservedState, ObservedVm, Unknown
from reconciler.model.plan import Held
from reconciler.model.vm import USER_NETWORK, Network, OnChange, RunState, Vm
from reconciler.plan.policy import overdue, rests


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What every VM's decision looks at, beside the VM."""

    observed: ObservedState
    networks: Mapping[str, Network]
    """Those of the file, and for VMs that are left as they are, those of the inventory."""
    declared: frozenset[str] = frozenset()
    """Which of them are the file's."""
    addresses: Mapping[str, IPv4Address]
    full: frozenset[str]
    """VMs for which their network has no address left."""
    artifacts: frozenset[str]
    """Identities of the images and kernels that are there, or will be."""
    allow_recreate: bool
    unresolved: frozenset[str] = frozenset()
    """Identities of images of which it is not known which ones are meant: nothing can be made of them, or compared."""
    contested: Mapping[str, str] = field(default_factory=dict)
    """VMs whose address another one, which is left as it is, does not give up."""
    volumes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Bytes of the volumes that are there, by VM and name; also of VMs that are gone."""
    unattended: bool = False
    """Nobody asked for this plan: what was stopped on purpose stays so."""
    withheld: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """VMs that are not removed though they left the file: why, and what would let them go."""
    blocked: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """VMs that must not be started, likewise."""


@dataclass(slots=True)
class Decision:
    """What is to be done with one VM.

    Parameters
    ----------
    keeps: the network that it goes on using, though the file may not have it.
    pending: it runs on with what it was started with, though the file says otherwise by now.
    rests: why it is not started though the file wants it to run, as what is said after "it".
    """

    actions: list[Action] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    keeps: str | None = None
    pending: bool = False
    rests: str | None = None

    def hold(self, name: str, reason: str, release: str) -> Decision:
        self.held.append(Held(object=f"vm/{name}", reason=reason, release=release))
        return self


def plan_vm(name: str, want: Vm | None, have: ObservedVm | None, world: World) -> Decision:
    """Decides about the VM `name`; at least one of `want` and `have` is given."""
    decision = Decision(keeps=have.network if have is not None and have.bridged else None)
    if blind := _blind(want, have, world.observed):
        return decision.hold(name, blind, "run it again")
    if want is None:
        assert have is not None
        return _remove(have, world, decision)
    if want.image_id in world.unresolved:
        decision.hold(name, *_unresolved(want))
        return _leave(have, world, decision) if have is not None else decision
    if have is None or not (have.disk or have.running):
        reason = f"vms.{name} is new" if have is None else "its disk is missing"
        if _hold_creation(want, world, decision):
            return decision
        decision.rests = rests(want, have) if have is not None and world.unattended else None
        return _create(want, world, decision, reason)
    if not have.disk:
        return decision.hold(
            name,
            "its disk was removed while it runs; what it holds is lost when it stops",
            f"copy what you need, then `banger vm stop {name}` and apply again",
        )
    return _compare(want, have, world, decision)


def _blind(want: Vm | None, have: ObservedVm | None, observed: ObservedState) -> str | None:
    """What about this VM could not be observed (I4)."""
    if observed.processes is not None:
        return f"the process table cannot be read: {observed.processes.reason}"
    if any(vm.bridged for vm in (want, have.spec if have else None, have) if vm is not None):
        for links in (observed.taps, observed.bridges):
            if isinstance(links, Unknown):
                return f"the links of this host cannot be read: {links.reason}"
        if isinstance(observed.rules, Unknown):
            return f"the packet filter's rules cannot be read: {observed.rules.reason}"
    return None


def _remove(have: ObservedVm, world: World, decision: Decision) -> Decision:
    if have.spec.protect:
        return decision.hold(
            have.name,
            f"vms.{have.name} was removed from the file, but the vm is protected",
            "put the block back with `protect: false`, apply, then remove it",
        )
    if have.name in world.withheld:
        decision.hold(have.name, *world.withheld[have.name])
        return _leave(have, world, decision)
    decision.keeps = None
    reason = f"vms.{have.name} is not in the file"
    if have.running:
        decision.actions.append(StopVm(name=have.name, reason=reason))
    decision.actions.extend(_drop_tap(have.name, reason, world))
    decision.actions.append(TrashVm(name=have.name, reason=reason))
    return decision


def _hold_creation(want: Vm, world: World, decision: Decision) -> bool:
    """Whether the VM cannot be made now; asked before anything of an old one is given up."""
    if unread := _unread_cache(world):
        decision.hold(want.name, *unread)
    elif want.name in world.full:
        decision.hold(want.name, *_no_address(want))
    elif want.name in world.contested:
        decision.hold(want.name, *_taken(want, world))
    elif want.name in world.blocked:
        decision.hold(want.name, *world.blocked[want.name])
    elif lost := shrunk(want.volumes, world.volumes.get(want.name, {})):
        decision.hold(want.name, *_loss(lost))
    return bool(decision.held)


def _unread_cache(world: World) -> tuple[str, str] | None:
    for what, there in (
        ("images", world.observed.images),
        ("kernels", world.observed.kernels),
        ("guest tools", world.observed.tools),
    ):
        if isinstance(there, Unknown):
            return f"the {what} in the cache cannot be read: {there.reason}", "make the cache readable"
    return None


def _unresolved(want: Vm) -> tuple[str, str]:
    return (
        f"it is not known yet which image images.{want.image} is",
        "it goes on once the image's registry has said so",
    )


def _no_address(want: Vm) -> tuple[str, str]:
    return f"network {want.network} has no free address", f"give networks.{want.network} a wider cidr"


def _taken(want: Vm, world: World) -> tuple[str, str]:
    other = world.contested[want.name]
    return (
        f"vm {other}, which is left as it is, still has the address {world.addresses[want.name]}",
        f"give one of them another address, or see why vm {other} is held back",
    )


def _loss(lost: list[Change]) -> tuple[str, str]:
    return "; ".join(map(str, lost)) + ": data would be lost", "undo the change, or use a new name"


def _create(want: Vm, world: World, decision: Decision, reason: str) -> Decision:
    decision.keeps = None
    address = world.addresses.get(want.name)
    decision.actions.append(CreateVm(name=want.name, vm=want, address=address, reason=reason))
    _run_or_rest(want, reason, world, decision)
    return decision


def _compare(want: Vm, have: ObservedVm, world: World, decision: Decision) -> Decision:
    name = want.name
    if lost := refusals(have.spec, want, world.volumes.get(name, {}), have.booted):
        decision.hold(name, *_loss(lost))
        return _leave(have, world, decision)
    if recreate := compare(have.created, creation_facts(want), ChangeClass.RECREATE):
        reason = "; ".join(map(str, recreate))
        if want.protect:
            decision.hold(name, f"{reason}, but the vm is protected", "set `protect: false`, or undo the change")
        elif not world.allow_recreate:
            decision.hold(name, reason, "apply with --allow-recreate (the old disk goes to the trash, volumes stay)")
        if decision.held or _hold_creation(want, world, decision):
            return _leave(have, world, decision)
        if have.running:
            decision.actions.append(StopVm(name=name, reason=reason, restart=True))
        decision.actions.append(TrashVm(name=name, reason=reason, recreate=True))
        return _create(want, world, decision, reason)
    if name in world.full:
        decision.hold(name, *_no_address(want))
        return _leave(have, world, decision)
    if name in world.contested:
        decision.hold(name, *_taken(want, world))
        return _leave(have, world, decision)
    if name in world.blocked:
        decision.hold(name, *world.blocked[name])
        return _leave(have, world, decision)
    return _settle(want, have, world, decision)


def _settle(want: Vm, have: ObservedVm, world: World, decision: Decision) -> Decision:
    """The disk is right: what remains is to record, to restart, to start or to stop."""
    name = want.name
    address = world.addresses.get(name)
    should_run = want.state is RunState.RUNNING
    halt = overdue(want, have) if have.running and should_run and world.unattended else None
    reasons: list[str] = []
    if have.running and should_run and halt is None:
        reasons = _restart_reasons(want, have, world, decision)
    if reasons and (unread := _unread_cache(world)):
        # What is stopped could perhaps not be started again.
        decision.hold(name, f"{'; '.join(reasons)}, but {unread[0]}", unread[1])
        return _leave(have, world, decision)
    if reasons:
        decision.actions.append(StopVm(name=name, reason="; ".join(reasons), restart=True))
    if not decision.pending:
        decision.keeps = None
    release = have.running and should_run and not world.unattended and have.halted is not None
    if have.spec != want or have.address != address or release:
        reason = _edited(want, have) if not release else f"it is not to be stopped after all ({have.halted})"
        decision.actions.append(UpdateVm(name=name, vm=want, address=address, release=release, reason=reason))
    if not should_run and have.running:
        decision.actions.append(StopVm(name=name, reason=f"vms.{name}.state is stopped"))
    elif halt is not None:
        _halt(name, halt, world, decision)
        return decision
    if not have.running and should_run and world.unattended:
        decision.rests = rests(want, have)
    if reasons or not have.running or not should_run:
        _run_or_rest(want, "; ".join(reasons) or "it is not running", world, decision)
    else:
        decision.actions.extend(_connect(_as_booted(want, have) if decision.pending else want, world))
        decision.actions.extend(_publish(want, have))
        decision.actions.extend(_ship(want, have))
    return decision


def _restart_reasons(want: Vm, have: ObservedVm, world: World, decision: Decision) -> list[str]:
    """Why a VM that runs has to be started anew. Edits alone may have to wait for the next start."""
    facts = boot_facts(want, world.networks.get(want.network), world.addresses.get(want.name))
    changes = list(map(str, restarts(have.booted, facts)))
    waits = want.on_change is OnChange.NEXT_START
    lost = _lost_tap(_as_booted(want, have) if waits else want, have, world)
    if waits and not lost:
        decision.pending = bool(changes)
        return []
    return [*changes, *lost]


def _as_booted(spec: Vm, have: ObservedVm) -> Vm:
    """The settings, on the network that the VM is really on."""
    return replace(spec, network=have.network)


def _halt(name: str, why: str, world: World, decision: Decision) -> None:
    decision.rests = f"is stopped ({why})"
    decision.actions.append(StopVm(name=name, reason=why, halt=why))
    decision.actions.extend(_drop_tap(name, why, world))


def _leave(have: ObservedVm, world: World, decision: Decision) -> Decision:
    """A held VM goes on as it was: with its old settings, and running if it should and still can."""
    spec, network = _as_booted(have.spec, have), world.networks.get(have.network)
    if world.unattended and have.running and (halt := overdue(spec, have)):
        _halt(have.name, halt, world, decision)
        return decision
    if have.bridged and (network is None or have.lease is None or have.lease not in network.cidr):
        return decision  # its network has moved away under it
    if have.running:
        if not _lost_tap(spec, have, world):
            decision.actions.extend(_connect(spec, world))
        return decision
    if spec.state is not RunState.RUNNING or have.name in world.blocked:
        return decision
    decision.rests = rests(spec, have) if world.unattended else None
    if decision.rests is None and have.disk and {spec.image_id, spec.kernel_id} <= world.artifacts:
        decision.actions.extend(_connect(spec, world))
        decision.actions.append(
            StartVm(name=have.name, vm=spec, network=network, address=have.address, reason="it is not running")
        )
    return decision


def _run_or_rest(want: Vm, reason: str, world: World, decision: Decision) -> None:
    if want.state is RunState.STOPPED or decision.rests is not None:
        decision.actions.extend(_drop_tap(want.name, f"vms.{want.name} does not run", world))
        return
    decision.actions.extend(_connect(want, world) if want.bridged else _drop_tap(want.name, reason, world))
    decision.actions.append(
        StartVm(
            name=want.name,
            vm=want,
            network=world.networks.get(want.network),
            address=world.addresses.get(want.name),
            reason=reason,
        )
    )


def _connect(want: Vm, world: World) -> list[Action]:
    """The tap, if it is not there as it should be."""
    taps, bridges, network = world.observed.taps, world.observed.bridges, world.networks.get(want.network)
    if not want.bridged or network is None or isinstance(taps, Unknown) or isinstance(bridges, Unknown):
        return []
    tap, bridge = taps.get(want.name), bridges.get(want.network)
    if tap is None:
        reason = "it has no tap"
    elif bridge is None or tap.master != bridge.name:
        reason = f"its tap {tap.name} is not on the bridge of network {want.network}"
    elif tap.mtu != network.mtu:
        reason = f"its tap {tap.name} has mtu {tap.mtu} instead of {network.mtu}"
    elif not tap.up:
        reason = f"its tap {tap.name} is down"
    else:
        return []
    return [EnsureTap(name=want.name, network=want.network, mtu=network.mtu, reason=reason)]


def _publish(want: Vm, have: ObservedVm) -> list[Action]:
    """What is published of a VM that runs on, and whose VMM does that itself."""
    told, wanted = have.booted.get("ports", ""), published(want.ports)
    if have.network != USER_NETWORK or told == wanted:
        return []
    return [PublishPorts(name=want.name, ports=want.ports, reason=f"ports: {told or 'none'} → {wanted or 'none'}")]


def _ship(want: Vm, have: ObservedVm) -> list[Action]:
    """The workspace, once the guest was seen ready; not in the way of what is done before that."""
    if want.workspace is None or have.ready_at is None or have.shipped == want.workspace.guest:
        return []
    reason = f"{want.workspace.guest} was not shipped to it yet"
    return [ShipWorkspace(name=want.name, workspace=want.workspace, reason=reason)]


def _drop_tap(name: str, reason: str, world: World) -> list[Action]:
    taps = world.observed.taps
    if isinstance(taps, Unknown) or name not in taps:
        return []
    return [DeleteTap(name=name, reason=reason)]


def _lost_tap(want: Vm, have: ObservedVm, world: World) -> list[str]:
    """A VMM holds its tap open: once that is deleted, a new one of the same name is not the one it has."""
    taps = world.observed.taps
    if not want.bridged or not have.bridged or isinstance(taps, Unknown):
        return []
    tap = taps.get(want.name)
    if tap is None:
        return ["its tap is gone"]
    # A tap that is down shows no carrier whoever holds it.
    return [f"its VMM is not attached to the tap {tap.name}"] if tap.up and not tap.carrier else []


def _edited(want: Vm, have: ObservedVm) -> str:
    fields = [spec_key(f) for f in type(want).__slots__ if getattr(want, f) != getattr(have.spec, f)]
    return f"vms.{want.name} was edited: {', '.join(fields)}" if fields else "its address changed"
