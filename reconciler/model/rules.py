"""What the host's packet filter is to do for one network: who is on it, what may go where, what is published. Pure.

It is built from fields alone, and compared with what is loaded by a digest over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from reconciler.model.codec import to_json
from reconciler.model.ids import identity
from reconciler.model.vm import Egress, Network, Protocol, Publication

RULES_RECIPE = 1
"""Raised when the same fields would be made into other rules, so that old ones are not taken for new ones."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Member:
    """A VM that is or will be on a network, running or not."""

    vm: str
    address: IPv4Address


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PublishedPort:
    """A port of the host that leads to one of a VM; as `desired.Publication`."""

    host_address: str
    host_port: int
    protocol: Protocol
    vm: str
    guest_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRules:
    """The rules of one network. Members and ports are sorted; no address and no port of the host is there twice.

    `restricted`: new connections to the outside are only for `egress`; else that is empty.
    """

    cidr: IPv4Network
    cidr6: IPv6Network | None
    nat: bool
    isolated: bool
    dns: bool
    restricted: bool
    egress: tuple[Egress, ...]
    vms: tuple[Member, ...]
    ports: tuple[PublishedPort, ...]

    @property
    def digest(self) -> str:
        """16 hex digits."""
        return identity("rules", [RULES_RECIPE, to_json(self)])


def build_rules(
    network: Network, members: Mapping[str, IPv4Address], ports: Mapping[str, Iterable[Publication]]
) -> NetworkRules:
    """The rules of `network` for its VMs: their addresses, and what each of them publishes."""
    return NetworkRules(
        cidr=network.cidr,
        cidr6=network.cidr6,
        nat=network.nat,
        isolated=network.isolated,
        dns=network.dns,
        restricted=network.egress is not None,
        egress=network.egress or (),
        vms=tuple(sorted(Member(vm=vm, address=address) for vm, address in members.items())),
        ports=tuple(
            sorted(
                PublishedPort(
                    host_address=port.host_address,
                    host_port=port.host_port,
                    protocol=port.protocol,
                    vm=vm,
                    guest_port=port.guest_port,
                )
                for vm, published in ports.items()
                if vm in members
                for port in published
            )
        ),
    )
