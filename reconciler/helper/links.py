"""The host's links and routes as `ip -json` shows them. Pure: text in, values out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from reconciler.helper.names import BRIDGE_GROUP, LinkOwner, is_bridge_name, owner_of

BRIDGE = "bridge"
TAP = "tap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface. `kind` is bridge, tap, or whatever else the kernel calls it ("" if it has none)."""

    name: str
    kind: str = ""
    alias: str | None = None
    group: int = 0
    mac: str = ""
    mtu: int = 1500
    up: bool = False
    master: str | None = None
    tap_owner: str | None = None
    addresses: tuple[IPv4Interface, ...] = ()

    @property
    def owner(self) -> LinkOwner | None:
        return owner_of(self.name, self.alias)

    @property
    def half_made(self) -> bool:
        """A bridge whose maker was killed between creating and naming it."""
        return self.kind == BRIDGE and is_bridge_name(self.name) and self.group == BRIDGE_GROUP and not self.alias


@dataclass(frozen=True, slots=True)
class Route:
    """A destination that the host knows, and the interface it leads to (None for a blackhole)."""

    network: IPv4Network
    interface: str | None


@dataclass(frozen=True, slots=True)
class World:
    """What exists on the host, by interface name."""

    links: dict[str, Link]
    routes: tuple[Route, ...] = ()

    def ports(self, bridge: str) -> list[Link]:
        return [link for link in self.links.values() if link.master == bridge]

    def owned(self, uid: int, kind: str) -> int:
        """How many links of a kind carry a uid: what its quota counts."""
        return sum(
            1 for link in self.links.values() if link.owner and link.owner.uid == uid and link.owner.kind == kind
        )


def parse_links(text: str) -> dict[str, Link]:
    """The output of `ip -details -json address show`; ValueError or KeyError if it is not that."""
    return {link.name: link for link in map(_link, json.loads(text or "[]")) if link}


def parse_routes(text: str) -> tuple[Route, ...]:
    """The output of `ip -4 -json route show table all`, without default routes, which overlap everything.

    A pair of /1 is a default route too: VPN programs write it so, to win over the real one.
    """
    routes = (
        Route(IPv4Network(entry["dst"], strict=False), entry.get("dev"))
        for entry in json.loads(text or "[]")
        if entry["dst"] != "default"
    )
    return tuple(route for route in routes if route.network.prefixlen > 1)


def _link(entry: dict[str, Any]) -> Link | None:
    if "ifname" not in entry:  # iproute2 leaves {} where a filter removed a link
        return None
    info = entry.get("linkinfo", {})
    data = info.get("info_data", {})
    kind = info.get("info_kind", "")
    return Link(
        name=entry["ifname"],
        kind=data.get("type", kind) if kind == "tun" else kind,
        alias=entry.get("ifalias"),
        group=_group(entry.get("group", "default")),
        mac=entry.get("address", ""),
        mtu=entry["mtu"],
        up="UP" in entry["flags"],
        master=entry.get("master"),
        tap_owner=str(data["user"]) if "user" in data else None,
        addresses=tuple(
            IPv4Interface(f"{address['local']}/{address['prefixlen']}")
            for address in entry.get("addr_info", [])
            if address.get("family") == "inet" and "local" in address
        ),
    )


def _group(text: str) -> int:
    """A group number; 0 for any that /etc/iproute2/group gives a name, of which ours is none."""
    return int(text) if text.isdecimal() else 0
