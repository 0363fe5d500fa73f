"""Which `ip` commands lead from what exists to what is wanted. Pure; no commands if it is right already.

Order matters to kill -9: after each prefix of a list, the link is recognisable and the rest of the list can follow.
"""

from __future__ import annotations

from ipaddress import IPv4Interface

from reconciler.helper.links import Link
from reconciler.helper.names import BRIDGE_GROUP, LinkOwner

Command = tuple[str, ...]


def bridge_commands(
    owner: LinkOwner, link: Link | None, *, address: IPv4Interface, mtu: int, ipv6: bool
) -> list[Command]:
    """Towards a bridge of `owner`, up, with exactly one IPv4 address. `mtu` in bytes."""
    name = owner.interface
    commands: list[Command] = []
    if link is None:
        # A bridge follows the smallest MTU of its ports until its own is changed (br_change_mtu, net/bridge/br_device.c),
        # and setting what it has already is no change. So it is made with another one.
        commands.append(_create(owner, mtu - 1))
        link = Link(name=name, mac=owner.mac, mtu=mtu - 1)
    if link.alias != owner.alias:
        # Without link-local IPv6 the host is no neighbour that guests could reach around the IPv4 rules.
        commands.append(_set(name, "alias", owner.alias, *_no_ipv6(ipv6)))
    if link.mac != owner.mac:
        commands.append(_set(name, "address", owner.mac))
    if link.mtu != mtu:
        commands.append(_set(name, "mtu", str(mtu)))
    # Deleted before added: deleting a primary address takes the secondary ones of its subnet with it.
    commands += [("address", "del", str(stale), "dev", name) for stale in link.addresses if stale != address]
    if address not in link.addresses:
        commands.append(("address", "add", str(address), "brd", "+", "dev", name))
    if not link.up:
        commands.append(_set(name, "up"))
    return commands


def tap_commands(owner: LinkOwner, link: Link, *, bridge: str, mtu: int, ipv6: bool) -> list[Command]:
    """Towards a tap of `owner` that is up and a port of `bridge`. `mtu` in bytes."""
    name = owner.interface
    commands: list[Command] = []
    if link.alias != owner.alias:
        commands.append(_set(name, "alias", owner.alias, *_no_ipv6(ipv6)))
    changes: list[str] = []
    if link.mtu != mtu:
        changes += ["mtu", str(mtu)]
    if link.master != bridge:
        changes += ["master", bridge]
    if not link.up:
        changes.append("up")
    if changes:
        commands.append(_set(name, *changes))
    return commands


def delete_command(name: str) -> Command:
    return ("link", "delete", "dev", name)


def _create(owner: LinkOwner, mtu: int) -> Command:
    device = ("group", str(BRIDGE_GROUP), "address", owner.mac, "mtu", str(mtu))
    return ("link", "add", "name", owner.interface, *device, "type", "bridge", "stp_state", "0", "forward_delay", "0")


def _set(name: str, *what: str) -> Command:
    return ("link", "set", "dev", name, *what)


def _no_ipv6(ipv6: bool) -> tuple[str, ...]:
    return ("addrgenmode", "none") if ipv6 else ()
