"""Packet filter rules: for each network, those that fit who will be on it when the plan is done.

A VM that is left as it is keeps what it has: its address, and the ports of the host that lead to it. What another VM asks
of those is left out, and told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from reconciler.model.actions import EnsureRules, TrashVm
from reconciler.model.observed import ObservedState, ObservedVm, Unknown
from reconciler.model.plan import Held
from reconciler.model.rules import NetworkRules, build_rules
from reconciler.model.vm import Network, Publication, Vm
from reconciler.plan.vms import Decision, World

_FILTERED = ("cidr", "cidr6", "nat", "isolated", "dns", "egress")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a VM will be. `kept`: it is there now, and stays."""

    vm: str
    network: str
    address: IPv4Address
    ports: tuple[Publication, ...]
    kept: bool


@dataclass(slots=True)
class _Draft:
    members: dict[str, IPv4Address] = field(default_factory=dict)
    ports: dict[str, list[Publication]] = field(default_factory=dict)


def recorded_rules(network: Network, observed: ObservedState) -> NetworkRules:
    """The rules that fit what was done last, whatever the file says by now."""
    places = [place for have in observed.vms.values() if (place := _as_it_is(have)) is not None]
    drafts, _ = _draft(places, {network.name: network})
    return _finished(network, drafts)


def plan_rules(
    desired: Mapping[str, Vm], world: World, decisions: Mapping[str, Decision], kept: Mapping[str, str]
) -> tuple[list[EnsureRules], list[Held]]:
    """What is to be done about rules.

    Parameters
    ----------
    desired: the file's VMs.
    kept: for each network that a VM keeps though it left the file, one such VM.
    """
    observed = world.observed
    rules, bridges = observed.rules, observed.bridges
    if isinstance(rules, Unknown) or isinstance(bridges, Unknown) or observed.processes is not None:
        return [], []  # told with the networks, or with every single VM
    networks = {name: network for name, network in world.networks.items() if name in world.declared or name in kept}
    places = []
    for name, decision in decisions.items():
        place = _placed(desired.get(name), observed.vms.get(name), decision, world)
        if place is not None:
            places.append(place)
    drafts, held = _draft(places, networks)
    actions = []
    for name, network in networks.items():
        wanted = _finished(network, drafts)
        have = rules.get(name)
        if have is None:
            reason = f"networks.{name} has no rules"
        elif not have.intact:
            reason = "its rules were changed by somebody else"
        elif have.digest != wanted.digest:
            reason = _edited(network, observed.networks.get(name))
        elif name not in bridges:
            reason = "its bridge is made anew"  # and what is set for an interface went with the old one
        else:
            continue
        actions.append(EnsureRules(name=name, network=network, rules=wanted, reason=reason))
    return actions, held


def _placed(want: Vm | None, have: ObservedVm | None, decision: Decision, world: World) -> _Place | None:
    if want is None or decision.held or decision.pending:
        if have is None or (want is None and any(isinstance(action, TrashVm) for action in decision.actions)):
            return None
        place = _as_it_is(have)
        if place is None or want is None or decision.held:
            return place
        # It waits for its next start with the rest; a publication needs none.
        return _Place(vm=place.vm, network=place.network, address=place.address, ports=want.ports, kept=True)
    address = world.addresses.get(want.name)
    if not want.bridged or address is None:
        return None
    return _Place(vm=want.name, network=want.network, address=address, ports=want.ports, kept=False)


def _as_it_is(have: ObservedVm) -> _Place | None:
    if not have.bridged or have.lease is None:
        return None
    return _Place(vm=have.name, network=have.network, address=have.lease, ports=have.spec.ports, kept=True)


def _draft(places: list[_Place], networks: Mapping[str, Network]) -> tuple[dict[str, _Draft], list[Held]]:
    drafts = {name: _Draft() for name in networks}
    taken: dict[tuple[str, IPv4Address], str] = {}
    published: dict[tuple[int, str], list[tuple[Publication, str]]] = {}
    held = []
    # Those that are left as they are come first, in an order of their own: what they have is theirs.
    for place in sorted(places, key=lambda place: (not place.kept, place.vm)):
        draft, network = drafts.get(place.network), networks.get(place.network)
        if draft is None or network is None or place.address not in network.cidr:
            continue
        if taken.setdefault((place.network, place.address), place.vm) != place.vm:
            continue  # told where that VM is held back
        draft.members[place.vm] = place.address
        for port in place.ports:
            same = published.setdefault((port.host_port, port.protocol), [])
            other = next((vm for there, vm in same if there.clashes(port)), None)
            if other is None:
                same.append((port, place.vm))
                draft.ports.setdefault(place.vm, []).append(port)
            else:
                held.append(
                    Held(
                        object=f"network/{place.network}",
                        reason=f"the host's port {port.host_port} for vm {place.vm} still leads to vm {other}",
                        release=f"see why vm {other} is held back, or choose another port",
                    )
                )
    return drafts, held


def _finished(network: Network, drafts: Mapping[str, _Draft]) -> NetworkRules:
    draft = drafts[network.name]
    return build_rules(network, draft.members, draft.ports)


def _edited(network: Network, recorded: Network | None) -> str:
    fields = [f for f in _FILTERED if recorded is not None and getattr(network, f) != getattr(recorded, f)]
    if fields:
        return f"networks.{network.name} was edited: {', '.join(fields)}"
    return "who is on it, or what they publish, has changed"
