"""A root helper without root: bridges, taps and rules are entries of dictionaries, and so is what a look at them shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Any

from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.helper.protocol import Code, Refusal
from reconciler.model.observed_links import Links, ObservedBridge, ObservedTap

Key = tuple[str, str, str]
"""Installation, environment, name."""


@dataclass(frozen=True)
class LoadedRules:
    """One network's, as they came."""

    digest: str
    fields: Mapping[str, Any]
    intact: bool = True


@dataclass(frozen=True)
class ShownRules:
    """Has the fields of `reconciler.helper.client.RulesShown`."""

    generation: int
    rules: Mapping[tuple[str, str], tuple[str, bool]]
    blockers: tuple[str, ...]


class FakeHelper:
    """Has the calls of `reconciler.helper.client.HelperClient`; networks named in `broken` are refused."""

    def __init__(self, holds: Callable[[str], bool] = lambda tap: False) -> None:
        self.bridges: dict[Key, ObservedBridge] = {}
        self.taps: dict[Key, ObservedTap] = {}
        self.rules: dict[Key, LoadedRules] = {}
        self.generation = 1
        self.blockers: tuple[str, ...] = ()
        self.unreadable = False
        self.calls: list[str] = []
        self.broken: set[str] = set()
        self.closed = 0
        self._holds = holds

    def read_links(self, install: str, uid: int | None = None) -> Links:
        """Stands in for `drivers.network.probe.read_links`."""
        return Links(
            bridges={key[1:]: bridge for key, bridge in self.bridges.items() if key[0] == install},
            taps={
                key[1:]: replace(tap, carrier=tap.up and self._holds(tap.name))
                for key, tap in self.taps.items()
                if key[0] == install
            },
        )

    def ensure_bridge(
        self,
        *,
        install: str,
        environment: str,
        network: str,
        cidr: str,
        mtu: int,
        cidr6: str = "",
        operation: str = "",
    ) -> str:
        self.calls.append(f"ensure bridge {network}")
        if network in self.broken:
            raise Refusal(Code.FAILED, "the test wants it so")
        subnet = IPv4Network(cidr)
        for key, other in self.bridges.items():
            if key != (install, environment, network) and any(a.network.overlaps(subnet) for a in other.addresses):
                raise Refusal(Code.CIDR_TAKEN, f"{cidr} overlaps that of {other.name}")
        name = _name(install, environment, LinkKind.BRIDGE, network)
        address = IPv4Interface(f"{subnet.network_address + 1}/{subnet.prefixlen}")
        subnet6 = IPv6Network(cidr6) if cidr6 else None
        self.bridges[install, environment, network] = ObservedBridge(
            name=name,
            mtu=mtu,
            up=True,
            addresses=(address,),
            addresses6=(IPv6Interface(f"{subnet6.network_address + 1}/{subnet6.prefixlen}"),) if subnet6 else (),
        )
        return name

    def delete_bridge(self, *, install: str, environment: str, network: str, operation: str = "") -> bool:
        self.calls.append(f"delete bridge {network}")
        self.rules.pop((install, environment, network), None)
        return self.bridges.pop((install, environment, network), None) is not None

    def ensure_rules(self, *, install: str, environment: str, network: str, digest: str, **fields: Any) -> bool:
        self.calls.append(f"ensure rules {network}")
        if (install, environment, network) not in self.bridges:
            raise Refusal(Code.NO_BRIDGE, f"network {network} has no bridge yet")
        key = (install, environment, network)
        if key in self.rules and self.rules[key].intact and self.rules[key].digest == digest:
            return False
        del fields["operation"]
        self.rules[key] = LoadedRules(digest=digest, fields=fields)
        self.generation += 1
        return True

    def show_rules(self, *, install: str) -> ShownRules:
        if self.unreadable:
            raise Refusal(Code.FAILED, "nft: command not found")
        rules = {key[1:]: (loaded.digest, loaded.intact) for key, loaded in self.rules.items() if key[0] == install}
        return ShownRules(generation=self.generation, rules=rules, blockers=self.blockers)

    def flush_rules(self) -> None:
        """Somebody empties the packet filter."""
        self.rules.clear()
        self.generation += 1

    def ensure_tap(
        self, *, install: str, environment: str, network: str, vm: str, mtu: int, operation: str = ""
    ) -> str:
        self.calls.append(f"ensure tap {vm}")
        bridge = self.bridges.get((install, environment, network))
        if bridge is None:
            raise Refusal(Code.NO_BRIDGE, f"network {network} has no bridge yet")
        name = _name(install, environment, LinkKind.TAP, vm)
        self.taps[install, environment, vm] = ObservedTap(
            name=name, mtu=mtu, up=True, carrier=False, master=bridge.name
        )
        return name

    def delete_tap(self, *, install: str, environment: str, vm: str, operation: str = "") -> bool:
        self.calls.append(f"delete tap {vm}")
        return self.taps.pop((install, environment, vm), None) is not None

    def close(self) -> None:
        self.closed += 1


def _name(install: str, environment: str, kind: LinkKind, name: str) -> str:
    return LinkOwner(install, os.geteuid(), environment, kind, name).interface
