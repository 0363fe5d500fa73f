"""A root helper without root: bridges and taps are entries of dictionaries, and so is what a look at them shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.helper.protocol import Code, Refusal
from reconciler.model.observed_links import Links, ObservedBridge, ObservedTap

Key = tuple[str, str, str]
"""Installation, environment, name."""


class FakeHelper:
    """Has the calls of `reconciler.helper.client.HelperClient`; networks named in `broken` are refused."""

    def __init__(self, holds: Callable[[str], bool] = lambda tap: False) -> None:
        self.bridges: dict[Key, ObservedBridge] = {}
        self.taps: dict[Key, ObservedTap] = {}
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
        self, *, install: str, environment: str, network: str, cidr: str, mtu: int, operation: str = ""
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
        self.bridges[install, environment, network] = ObservedBridge(name=name, mtu=mtu, up=True, addresses=(address,))
        return name

    def delete_bridge(self, *, install: str, environment: str, network: str, operation: str = "") -> bool:
        self.calls.append(f"delete bridge {network}")
        return self.bridges.pop((install, environment, network), None) is not None

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
