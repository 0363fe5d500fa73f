"""Networks: a bridge for each that the file declares, none for one that nobody uses any more."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.actions import DeleteBridge, EnsureBridge
from reconciler.model.desired import DesiredState
from reconciler.model.observed import ObservedState, Unknown
from reconciler.model.observed_links import ObservedBridge
from reconciler.model.plan import Held
from reconciler.model.vm import Network
from reconciler.plan.guard import UNPRUNED


def plan_networks(
    desired: DesiredState, observed: ObservedState, in_use: Mapping[str, str], *, prune: bool = True
) -> tuple[list[EnsureBridge | DeleteBridge], list[Held]]:
    """What is to be done about bridges.

    Parameters
    ----------
    in_use: for each network that a VM keeps though it left the file, one such VM.
    prune: whether a network that left the file, and that nobody uses, goes.
    """
    bridges = observed.bridges
    if isinstance(bridges, Unknown):
        names = sorted({*desired.networks, *observed.networks})
        return [], _blind(names, f"the links of this host cannot be read: {bridges.reason}")
    if isinstance(observed.rules, Unknown):
        names = sorted({*desired.networks, *observed.networks, *bridges})
        return [], _blind(names, f"the packet filter's rules cannot be read: {observed.rules.reason}")
    actions: list[EnsureBridge | DeleteBridge] = []
    held: list[Held] = []
    for network in desired.networks.values():
        drift = _drift(network, bridges.get(network.name), recorded=network.name in observed.networks)
        if drift:
            actions.append(EnsureBridge(name=network.name, network=network, reason=drift))
    for name in sorted({*observed.networks, *bridges, *observed.rules} - set(desired.networks)):
        if name in in_use:
            known = observed.networks.get(name)
            drift = _drift(known, bridges.get(name), recorded=True) if known else None
            if known and drift:
                actions.append(EnsureBridge(name=name, network=known, reason=drift))
            held.append(
                Held(
                    object=f"network/{name}",
                    reason=f"networks.{name} was removed from the file, but vm {in_use[name]} still uses it",
                    release=f"move or remove vm {in_use[name]} first",
                )
            )
        elif not prune:
            held.append(
                Held(
                    object=f"network/{name}",
                    reason=f"networks.{name} is not in the file, and pruning is off",
                    release=UNPRUNED,
                )
            )
        else:
            actions.append(DeleteBridge(name=name, reason=f"networks.{name} is not in the file"))
    return actions, held


def _blind(names: list[str], reason: str) -> list[Held]:
    return [Held(object=f"network/{name}", reason=reason, release="run it again") for name in names]


def _drift(want: Network, have: ObservedBridge | None, *, recorded: bool) -> str | None:
    if have is None:
        return f"networks.{want.name} has no bridge"
    gateway = f"{want.gateway}/{want.cidr.prefixlen}"
    if have.cidr != want.cidr:
        return f"the bridge has the address {', '.join(map(str, have.addresses)) or 'none'} instead of {gateway}"
    if have.cidr6 != want.cidr6:
        own = f"{want.gateway6}/{want.cidr6.prefixlen}" if want.cidr6 is not None else "none"
        there = ", ".join(map(str, have.addresses6)) or "none"
        if there != own:
            return f"the bridge has the IPv6 address {there} instead of {own}"
    if have.mtu != want.mtu:
        return f"the bridge has mtu {have.mtu} instead of {want.mtu}"
    if not have.up:
        return "the bridge is down"
    return None if recorded else f"networks.{want.name} is not in the inventory"
