"""What the helper agrees to. Pure: (peer, request, what exists) in, nothing or a Refusal out."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface, IPv4Network

from reconciler.helper.links import BRIDGE, TAP, Link, World
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.helper.protocol import Code, DeleteBridge, EnsureBridge, EnsureTap, Envelope, Refusal, Request

MAX_BRIDGES = 64
MAX_TAPS = 1024
MTU_RANGE = range(1280, 9001)  # below 1280 there is no IPv6 (RFC 8200, section 5)
PREFIX_RANGE = range(16, 30)
OVERFLOW_UID = 65534  # what the kernel shows for a uid that this user namespace does not know (user_namespaces(7))
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918

_INSTALL = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPERATION = re.compile(r"[A-Za-z0-9._:/-]{0,128}")
_OCTET = r"(0|[1-9][0-9]{0,2})"
_CIDR = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}/(0|[1-9][0-9]?)")


def check(uid: int, envelope: Envelope) -> None:
    """Refuses a request that is wrong whatever exists on the host."""
    if uid == OVERFLOW_UID:
        raise Refusal(Code.BAD_IDENTITY, "the peer's uid has no meaning here")
    if not _ID.fullmatch(envelope.id):
        raise Refusal(Code.BAD_FIELD, f"a request id matches {_ID.pattern}")
    if not _OPERATION.fullmatch(envelope.operation):
        raise Refusal(Code.BAD_FIELD, f"an operation id matches {_OPERATION.pattern}")
    request = envelope.request
    if not _INSTALL.fullmatch(request.install):
        raise Refusal(Code.BAD_NAME, "an install id is 12 lower-case hex digits")
    for field in ("environment", "network", "vm"):
        if hasattr(request, field) and not _NAME.fullmatch(getattr(request, field)):
            raise Refusal(Code.BAD_NAME, f"{field} matches {_NAME.pattern}")
    if isinstance(request, EnsureBridge | EnsureTap) and request.mtu not in MTU_RANGE:
        raise Refusal(Code.BAD_MTU, f"an MTU is {MTU_RANGE.start} to {MTU_RANGE.stop - 1}, not {request.mtu}")
    if isinstance(request, EnsureBridge):
        parse_cidr(request.cidr)


def parse_cidr(text: str) -> IPv4Network:
    """A private IPv4 network of /16 to /29 in its one canonical spelling."""
    if not _CIDR.fullmatch(text):
        raise Refusal(Code.BAD_CIDR, f"{text[:40]!r} is not a.b.c.d/len in plain decimal")
    try:
        network = IPv4Network(text)
    except ValueError as problem:
        raise Refusal(Code.BAD_CIDR, str(problem)) from None
    if network.prefixlen not in PREFIX_RANGE:
        raise Refusal(Code.BAD_CIDR, f"{text}: the prefix is /{PREFIX_RANGE.start} to /{PREFIX_RANGE.stop - 1}")
    if not any(network.subnet_of(private) for private in _PRIVATE):
        raise Refusal(Code.BAD_CIDR, f"{text} is not inside {', '.join(map(str, _PRIVATE))}")
    return network


def gateway(cidr: str) -> IPv4Interface:
    """The host's own address on a network: its first."""
    network = parse_cidr(cidr)
    return IPv4Interface(f"{network.network_address + 1}/{network.prefixlen}")


def subject(uid: int, request: Request) -> LinkOwner:
    """The link that a request is about. The uid is the peer's, as the kernel tells it."""
    if isinstance(request, EnsureBridge | DeleteBridge):
        return LinkOwner(request.install, uid, request.environment, LinkKind.BRIDGE, request.network)
    return LinkOwner(request.install, uid, request.environment, LinkKind.TAP, request.vm)


def permit(uid: int, request: Request, world: World) -> None:
    """Refuses a checked request that what exists forbids."""
    owner = subject(uid, request)
    link = world.links.get(owner.interface)
    if link is not None:
        _refuse_foreign(link, owner)
    if isinstance(request, DeleteBridge):
        _refuse_foreign_ports(owner, world)
    elif isinstance(request, EnsureBridge):
        _refuse_over_quota(owner, link, world, MAX_BRIDGES)
        _refuse_overlap(gateway(request.cidr), owner, link, world)
    elif isinstance(request, EnsureTap):
        _refuse_over_quota(owner, link, world, MAX_TAPS)
        bridge = bridge_of(uid, request)
        found = world.links.get(bridge.interface)
        if found is None or found.kind != BRIDGE or found.owner != bridge:
            raise Refusal(Code.NO_BRIDGE, f"{bridge} has no bridge {bridge.interface} yet")


def bridge_of(uid: int, request: EnsureTap) -> LinkOwner:
    """The bridge that a tap belongs on."""
    return LinkOwner(request.install, uid, request.environment, LinkKind.BRIDGE, request.network)


def corpses(world: World) -> list[str]:
    """Bridges left half-made. Meaningful only under the helper's lock: then nobody is at work on one."""
    return [name for name, link in world.links.items() if link.half_made and not link.up and not world.ports(name)]


def _refuse_foreign(link: Link, owner: LinkOwner) -> None:
    kind = BRIDGE if owner.kind is LinkKind.BRIDGE else TAP
    if link.kind == kind and (link.owner == owner or (kind == BRIDGE and link.half_made)):
        return
    what = f"alias {link.alias!r}" if link.alias else "no alias"
    raise Refusal(Code.FOREIGN_LINK, f"{link.name} is a {link.kind or 'device'} with {what}, not the {kind} of {owner}")


def _refuse_foreign_ports(owner: LinkOwner, world: World) -> None:
    for port in world.ports(owner.interface):
        if port.owner is None or (port.owner.install, port.owner.uid) != (owner.install, owner.uid):
            raise Refusal(Code.FOREIGN_PORT, f"{port.name} is a port of {owner.interface} and not of this installation")


def _refuse_over_quota(owner: LinkOwner, link: Link | None, world: World, most: int) -> None:
    if (link is None or link.owner is None) and world.owned(owner.uid, owner.kind) >= most:
        raise Refusal(Code.QUOTA, f"uid {owner.uid} has {most} links of this kind already")


def _refuse_overlap(address: IPv4Interface, owner: LinkOwner, link: Link | None, world: World) -> None:
    if link is not None and address in link.addresses:
        return  # claims nothing new: a VPN that came up later must not stop the repair of what was there before
    for other in world.links.values():
        for taken in other.addresses:
            if other.name != owner.interface and taken.network.overlaps(address.network):
                raise Refusal(Code.CIDR_TAKEN, f"{address.network} overlaps {taken} of {other.name}")
    for route in world.routes:
        if route.interface != owner.interface and route.network.overlaps(address.network):
            where = f"over {route.interface}" if route.interface else "of the host"
            raise Refusal(Code.CIDR_TAKEN, f"{address.network} overlaps the route to {route.network} {where}")
