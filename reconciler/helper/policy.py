"""What the helper agrees to. Pure: (peer, request, what exists) in, nothing or a Refusal out."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_network

from reconciler.helper.links import BRIDGE, TAP, Interface, Link, World
from reconciler.helper.names import NAME, LinkKind, LinkOwner
from reconciler.helper.nft import is_name
from reconciler.helper.protocol import Code, Envelope, Op, Refusal, Request

MAX_BRIDGES = 64
MAX_TAPS = 1024
MAX_PORTS = 1024
MAX_EGRESS = 256
MAX_ADDRESSES = 64
SECONDS_RANGE = range(1, 86_401)
MTU_RANGE = range(1280, 9001)  # below 1280 there is no IPv6 (RFC 8200, section 5)
PREFIX_RANGE = range(16, 30)
PORT_RANGE = range(1, 65_536)
PRIVILEGED_PORTS = range(1, 1024)
OVERFLOW_UID = 65534  # what the kernel shows for a uid that this user namespace does not know (user_namespaces(7))
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918
_LOCAL6 = IPv6Network("fd00::/8")  # RFC 4193
_LINK_LOCAL = IPv6Interface("fe80::1/64")

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OPERATION = re.compile(r"[A-Za-z0-9._:/-]{0,128}")
_PLAIN_CIDR = re.compile(r"[0-9.]{7,15}/[0-9]{1,2}")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)
_PATTERNS = {
    "install": (Code.BAD_NAME, re.compile(r"[0-9a-f]{12}")),
    "environment": (Code.BAD_NAME, re.compile(NAME)),
    "network": (Code.BAD_NAME, re.compile(NAME)),
    "vm": (Code.BAD_NAME, re.compile(NAME)),
    "digest": (Code.BAD_FIELD, re.compile(r"[0-9a-f]{16}")),
    "name": (Code.BAD_NAME, _HOST_NAME),
}
_RANGES = {"mtu": (Code.BAD_MTU, MTU_RANGE), "seconds": (Code.BAD_FIELD, SECONDS_RANGE)}
_MOST = {"vms": MAX_TAPS, "ports": MAX_PORTS, "egress": MAX_EGRESS, "addresses": MAX_ADDRESSES}


def check(uid: int, envelope: Envelope) -> None:
    """Refuses a request that is wrong whatever exists on the host."""
    if uid == OVERFLOW_UID:
        raise Refusal(Code.BAD_IDENTITY, "the peer's uid has no meaning here")
    if not _ID.fullmatch(envelope.id):
        raise Refusal(Code.BAD_FIELD, f"a request id matches {_ID.pattern}")
    if not _OPERATION.fullmatch(envelope.operation):
        raise Refusal(Code.BAD_FIELD, f"an operation id matches {_OPERATION.pattern}")
    request = envelope.request
    for field in request.op.fields:
        value = getattr(request, field)
        if field in _PATTERNS and not _PATTERNS[field][1].fullmatch(value):
            raise Refusal(_PATTERNS[field][0], f"{field} matches {_PATTERNS[field][1].pattern}")
        if field in _RANGES and value not in _RANGES[field][1]:
            bounds = _RANGES[field][1]
            raise Refusal(_RANGES[field][0], f"{field} is {bounds.start} to {bounds.stop - 1}, not {value}")
        if field in _MOST and len(value) > _MOST[field]:
            raise Refusal(Code.QUOTA, f"{len(value)} {field} are more than {_MOST[field]}")
    if "cidr" in request.op.fields:
        gateways(request)
        _check_rules(uid, request)
    for address in request.addresses:
        if not _is_address(address) or _is_own(address):
            raise Refusal(Code.BAD_ADDRESS, f"{address[:40]!r} is no address that a name may lead to")


def parse_cidr(text: str) -> IPv4Network:
    """A private IPv4 network of /16 to /29 in its one canonical spelling."""
    try:
        network = IPv4Network(text if _PLAIN_CIDR.fullmatch(text) else "")
    except ValueError:
        raise Refusal(Code.BAD_CIDR, f"{text[:40]!r} is not a.b.c.d/len in plain decimal, host bits zero") from None
    if str(network) != text or network.prefixlen not in PREFIX_RANGE:
        raise Refusal(Code.BAD_CIDR, f"{text}: the prefix is /{PREFIX_RANGE.start} to /{PREFIX_RANGE.stop - 1}")
    if not any(network.subnet_of(private) for private in _PRIVATE):
        raise Refusal(Code.BAD_CIDR, f"{text} is not inside {', '.join(map(str, _PRIVATE))}")
    return network


def gateways(request: Request) -> list[Interface]:
    """The host's own addresses on a network: the first of each family."""
    cidr = parse_cidr(request.cidr)
    found: list[Interface] = [IPv4Interface((cidr[1], cidr.prefixlen))]
    if request.cidr6:
        try:
            cidr6 = IPv6Network(request.cidr6)
        except ValueError as problem:
            raise Refusal(Code.BAD_CIDR, str(problem)[:200]) from None
        if str(cidr6) != request.cidr6 or cidr6.prefixlen != 64 or not cidr6.subnet_of(_LOCAL6):
            raise Refusal(Code.BAD_CIDR, f"{request.cidr6[:60]!r} is not a /64 inside {_LOCAL6}, in its short spelling")
        # The kernel forwards to no neighbour on a link where it has no link-local address to ask from.
        found += [IPv6Interface((cidr6[1], 64)), _LINK_LOCAL]
    return found


def subject(uid: int, request: Request) -> LinkOwner:
    """The link that a request is about. The uid is the peer's, as the kernel tells it."""
    kind, name = (LinkKind.TAP, request.vm) if "vm" in request.op.fields else (LinkKind.BRIDGE, request.network)
    return LinkOwner(request.install, uid, request.environment, kind, name)


def bridge_of(tap: LinkOwner, request: Request) -> LinkOwner:
    """The bridge that a tap belongs on."""
    return replace(tap, kind=LinkKind.BRIDGE, name=request.network)


def permit(uid: int, request: Request, world: World) -> None:
    """Refuses a checked request that what exists forbids."""
    owner = subject(uid, request)
    link = world.links.get(owner.interface)
    if link is not None:
        _refuse_foreign(link, owner)
    match request.op:
        case Op.DELETE_BRIDGE:
            _refuse_foreign_ports(owner, link, world)
        case Op.ENSURE_BRIDGE:
            if link is None or link.owner is None:
                owners = [found.owner for found in world.links.values() if found.kind == BRIDGE and found.owner]
                _refuse_over_quota(owner, sum(found.uid == uid for found in owners), MAX_BRIDGES)
            for address in gateways(request):
                _refuse_overlap(address, link, world)
        case Op.ENSURE_TAP:
            if link is None:
                _refuse_over_quota(owner, world.taps, MAX_TAPS)
            _bridge(bridge_of(owner, request), world)
        case Op.ENSURE_RULES:
            found = _bridge(owner, world)
            if not set(gateways(request)) <= set(world.addresses_of(found)):
                raise Refusal(Code.NO_BRIDGE, f"bridge {found.name} does not have the addresses of this network yet")
        case Op.ALLOW_ADDRESSES | Op.DNS_SOCKETS | Op.ROUTE_NAMES:
            _bridge(owner, world)


def corpses(world: World) -> list[Link]:
    """Bridges left half-made. Meaningful only under the helper's lock: then nobody is at work on one."""
    return [link for link in world.links.values() if link.half_made and not link.up and not world.ports(link)]


def _check_rules(uid: int, request: Request) -> None:
    cidr = parse_cidr(request.cidr)
    taken = {str(cidr[0]), str(cidr[1]), str(cidr[-1])}
    names = set[str]()
    for vm, address in request.vms:
        if not re.fullmatch(NAME, vm) or vm in names:
            raise Refusal(Code.BAD_NAME, f"VM {vm[:40]!r} is listed twice, or does not match {NAME}")
        if not _is_address(address) or address in taken or ip_address(address) not in cidr:
            raise Refusal(Code.BAD_ADDRESS, f"{address[:40]!r} of VM {vm} is not a free address of {cidr}")
        names.add(vm)
        taken.add(address)
    for row in request.egress:
        if not _is_egress(*row):
            raise Refusal(
                Code.BAD_FIELD, f"egress {row!r:.200} is not (CIDR or name, any|tcp|udp, first port, last port)"
            )
    wanted = set[tuple[str, int, str]]()
    for host, port, protocol, vm, guest_port in request.ports:
        what = f"port {host[:40]}:{port} to {vm[:40]}:{guest_port}"
        if port not in PORT_RANGE or guest_port not in PORT_RANGE or protocol not in ("tcp", "udp"):
            raise Refusal(Code.BAD_PORT, f"{what}: ports are 1 to 65535, the protocol tcp or udp")
        if port in PRIVILEGED_PORTS and uid != 0:
            raise Refusal(Code.BAD_PORT, f"{what}: below {PRIVILEGED_PORTS.stop} is root's")
        if vm not in names:
            raise Refusal(Code.BAD_PORT, f"{what}: there is no such VM on the network")
        if host and not (_is_address(host) and (not _is_own(host) or host.startswith("127."))):
            raise Refusal(Code.BAD_ADDRESS, f"{what}: not an address of the host that can be published")
        if ":" in host and not request.cidr6:
            raise Refusal(Code.BAD_PORT, f"{what}: the network has no cidr6")
        if wanted & {(other, port, protocol) for other in (host, "")} or (
            not host and any(w[1:] == (port, protocol) for w in wanted)
        ):
            raise Refusal(Code.BAD_PORT, f"{what}: {port}/{protocol} is published twice")
        wanted.add((host, port, protocol))


def _is_egress(to: str, protocol: str, first: int, last: int) -> bool:
    ports = (first, last) == (0, 0) or (protocol != "any" and 0 < first <= last <= PORT_RANGE[-1])
    if protocol not in ("any", "tcp", "udp") or not ports:
        return False
    if is_name(to):
        return _HOST_NAME.fullmatch(to) is not None and not _is_address(to)
    try:
        return str(ip_network(to)) == to
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    """Whether a text is an IP address in its one canonical spelling, without a zone."""
    try:
        return str(ip_address(text)) == text and "%" not in text
    except ValueError:
        return False


def _is_own(text: str) -> bool:
    """Whether an address means each host itself, or more than one."""
    address = ip_address(text)
    mapped = None if isinstance(address, IPv4Address) else address.ipv4_mapped
    return (
        address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or mapped is not None
    )


def _bridge(owner: LinkOwner, world: World) -> Link:
    found = world.links.get(owner.interface)
    if found is None or found.kind != BRIDGE or found.owner != owner:
        raise Refusal(Code.NO_BRIDGE, f"{owner} has no bridge {owner.interface} yet")
    return found


def _refuse_foreign(link: Link, owner: LinkOwner) -> None:
    kind = BRIDGE if owner.kind is LinkKind.BRIDGE else TAP
    if link.kind == kind and (link.owner == owner or (kind == BRIDGE and link.half_made)):
        return
    what = f"alias {link.alias!r}" if link.alias else "no alias"
    raise Refusal(Code.FOREIGN_LINK, f"{link.name} is a {link.kind or 'device'} with {what}, not the {kind} of {owner}")


def _refuse_foreign_ports(owner: LinkOwner, link: Link | None, world: World) -> None:
    for port in world.ports(link) if link else ():
        if port.owner is None or (port.owner.install, port.owner.uid) != (owner.install, owner.uid):
            raise Refusal(Code.FOREIGN_PORT, f"{port.name} is a port of {owner.interface} and not of this installation")


def _refuse_over_quota(owner: LinkOwner, found: int, most: int) -> None:
    if found >= most:
        raise Refusal(Code.QUOTA, f"uid {owner.uid} has {most} links of this kind already")


def _refuse_overlap(address: Interface, link: Link | None, world: World) -> None:
    if address == _LINK_LOCAL or (link is not None and address in world.addresses_of(link)):
        return  # claims nothing new: a VPN that came up later must not stop the repair of what was there before
    own = link.index if link else 0
    for index, taken in world.addresses:
        if index != own and taken.network.overlaps(address.network):
            raise Refusal(Code.CIDR_TAKEN, f"{address.network} overlaps {taken} of {world.name(index)}")
    for index, network in world.routes:
        if (index != own or not own) and network.overlaps(address.network):
            where = f"over {world.name(index)}" if index else "of the host"
            raise Refusal(Code.CIDR_TAKEN, f"{address.network} overlaps the route to {network} {where}")
