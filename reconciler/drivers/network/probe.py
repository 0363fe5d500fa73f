"""What bridges and taps of ours the kernel has, over rtnetlink(7). Reads only, and needs no privileges.

A link counts as ours if its alias is exactly one of ours, of this installation and uid, and its name the one derived
from it; everything else is foreign. A bridge without an alias is the helper's to complete or sweep.
"""

from __future__ import annotations

import os
from collections import defaultdict
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from reconciler.helper.names import LinkKind, owner_of
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.model.observed_links import Links, ObservedBridge, ObservedTap

_IFF_UP = 0x1
_NO_OWNER = 0xFFFFFFFF


def read_links(install: str, uid: int | None = None) -> Links:
    """The links of one installation and uid (by default this process's effective one).

    Raises BangerError (retryable) if the kernel could not be asked: that is unknown, not absent.
    """
    try:
        messages, addresses = _dump()
    except OSError as problem:
        raise BangerError(f"cannot read the network links: {problem}", error_class=ErrorClass.RETRYABLE) from None
    return _interpret(messages, addresses, install, os.geteuid() if uid is None else uid)


def _dump() -> tuple[list[Any], list[Any]]:
    # Here and not above: importing it costs more than all else that `banger ps` does.
    from pyroute2 import IPRoute  # noqa: PLC0415
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        with IPRoute() as route:
            return list(route.get_links()), list(route.get_addr())
    except NetlinkError as problem:
        raise OSError(problem.code, str(problem)) from None


def _interpret(messages: list[Any], addresses: list[Any], install: str, uid: int) -> Links:
    names = {message["index"]: str(message.get_attr("IFLA_IFNAME")) for message in messages}
    ports: dict[int, list[str]] = defaultdict(list)
    for message in messages:
        ports[message.get_attr("IFLA_MASTER") or 0].append(names[message["index"]])
    held: dict[int, list[IPv4Interface]] = defaultdict(list)
    held6: dict[int, list[IPv6Interface]] = defaultdict(list)
    for address in addresses:
        # IFA_LOCAL is the host's own; IFA_ADDRESS the other end's where there is one.
        local = address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS")
        own = ip_interface(f"{local}/{address['prefixlen']}")
        if isinstance(own, IPv4Interface):
            held[address["index"]].append(own)
        elif not own.is_link_local:
            held6[address["index"]].append(own)
    bridges: dict[tuple[str, str], ObservedBridge] = {}
    taps: dict[tuple[str, str], ObservedTap] = {}
    for message in messages:
        index = message["index"]
        owner = owner_of(names[index], message.get_attr("IFLA_IFALIAS"))
        if owner is None or (owner.install, owner.uid) != (install, uid):
            continue
        kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
        mtu, up = int(message.get_attr("IFLA_MTU")), bool(message["flags"] & _IFF_UP)
        if owner.kind is LinkKind.BRIDGE and kind == "bridge":
            bridges[owner.environment, owner.name] = ObservedBridge(
                name=names[index],
                mtu=mtu,
                up=up,
                addresses=tuple(sorted(held[index])),
                addresses6=tuple(sorted(held6[index])),
                ports=tuple(sorted(ports[index])),
            )
        elif owner.kind is LinkKind.TAP and kind == "tun":
            user = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_TUN_OWNER")
            taps[owner.environment, owner.name] = ObservedTap(
                name=names[index],
                mtu=mtu,
                up=up,
                carrier=bool(message.get_attr("IFLA_CARRIER")),
                master=names.get(message.get_attr("IFLA_MASTER") or 0),
                owner=None if user in (None, _NO_OWNER) else int(user),
            )
    return Links(bridges=bridges, taps=taps)
