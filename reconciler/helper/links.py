"""The host's links, addresses and routes, and what to change on ours. Pure: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from reconciler.helper.names import BRIDGE_GROUP, LinkOwner, managed, owner_of
from reconciler.helper.protocol import Code, Refusal

BRIDGE = "bridge"
TAP = "tap"

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Changes = dict[str, str | int]
"""Attributes of a link by name, as `netlink.Routing.set` takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface. `kind` is bridge, tap, or whatever else the kernel calls it; `master` an index or 0."""

    name: str
    index: int = 0
    kind: str = ""
    alias: str | None = None
    group: int = 0
    mac: str = ""
    mtu: int = 1500
    up: bool = False
    master: int = 0
    tap_owner: int | None = None

    @property
    def owner(self) -> LinkOwner | None:
        return owner_of(self.name, self.alias)

    @property
    def half_made(self) -> bool:
        """A bridge whose maker was killed between creating and naming it."""
        return self.kind == BRIDGE and managed(self.name) and self.group == BRIDGE_GROUP and not self.alias


@dataclass(frozen=True, slots=True)
class World:
    """What exists on the host: links by name; addresses and routes (default ones left out) by interface index."""

    links: dict[str, Link]
    addresses: tuple[tuple[int, Interface], ...] = ()
    routes: tuple[tuple[int, Network], ...] = ()
    taps: int = 0
    """How many taps the peer's uid has; counted only where it matters."""

    def ports(self, bridge: Link) -> list[Link]:
        return [link for link in self.links.values() if link.master == bridge.index]

    def addresses_of(self, link: Link) -> list[Interface]:
        return [found for index, found in self.addresses if index == link.index]

    def gateway(self, owner: LinkOwner) -> IPv4Address:
        """The IPv4 address of a bridge; Refusal if it has none."""
        found = self.addresses_of(self.links[owner.interface])
        for address in found:
            if isinstance(address, IPv4Interface):
                return address.ip
        raise Refusal(Code.NO_BRIDGE, f"bridge {owner.interface} has no address yet")

    def hosts(self) -> list[str]:
        """The host's own interfaces that are up and have an IPv4 address."""
        addressed = {index for index, found in self.addresses if found.version == 4}
        found = [link for link in self.links.values() if link.up and link.index in addressed]
        return [link.name for link in found if link.name != "lo" and not managed(link.name)]

    def name(self, index: int) -> str:
        """What an interface is called, for a message."""
        return next((link.name for link in self.links.values() if link.index == index), "nothing")


def bridge_changes(owner: LinkOwner, link: Link, *, mtu: int) -> Changes:
    """Towards a bridge of `owner` that is up. `mtu` in bytes."""
    return _changes(owner, link, mac=owner.mac, mtu=mtu)


def tap_changes(owner: LinkOwner, link: Link, *, bridge: Link, mtu: int) -> Changes:
    """Towards a tap of `owner` that is up and a port of `bridge`. `mtu` in bytes."""
    group = bridge.owner.port_group if bridge.owner else 0
    return _changes(owner, link, mtu=mtu, master=bridge.index, group=group)


def _changes(owner: LinkOwner, link: Link, **wanted: str | int) -> Changes:
    found: Changes = {"alias": link.alias or "", "mac": link.mac, "mtu": link.mtu, "master": link.master}
    found |= {"group": link.group, "up": link.up}
    wanted |= {"alias": owner.alias, "up": True}
    return {name: value for name, value in wanted.items() if found[name] != value}
