"""The networks of a file: their addresses, and what their VMs may reach."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import TypeVar

from reconciler.model.vm import NO_NETWORK, PREFIX6, USER_NETWORK, Network
from reconciler.spec import published
from reconciler.spec.defaults import Given, look_up, names_of
from reconciler.spec.egress import resolve_egress
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document

PREFIXES = range(16, 30)
PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))  # RFC 1918
UNIQUE_LOCAL = IPv6Network("fd00::/8")  # RFC 4193: the half that is assigned locally

_Subnet = TypeVar("_Subnet", IPv4Network, IPv6Network)


def resolve_networks(document: Document) -> dict[str, Network]:
    """Every network that can be made sense of, by name, in the file's order."""
    found: dict[str, Network] = {}
    for name in names_of(document, "networks"):
        path = ("networks", name)
        if name in (USER_NETWORK, NO_NETWORK):
            document.report(path, f"{name!r} is built in", "give the network another name", key=True)
            continue
        cidr = _cidr(document, (*path, "cidr"))
        cidr6 = _cidr6(document, (*path, "cidr6"))
        simple = {key: look_up(document, (*path, key), default=published.defaults("network")[key]) for key in _SIMPLE}
        nameservers = _nameservers(document, (*path, "nameservers"))
        egress = resolve_egress(document, (*path, "egress"))
        if cidr is None:
            continue
        _no_overlap(document, (*path, "cidr"), cidr, {n.name: n.cidr for n in found.values()})
        if cidr6 is not None:
            others = {n.name: n.cidr6 for n in found.values() if n.cidr6 is not None}
            _no_overlap(document, (*path, "cidr6"), cidr6, others)
        if not all(given.usable for given in simple.values()):
            continue
        network = Network(
            name=name,
            cidr=cidr,
            cidr6=cidr6,
            nameservers=nameservers,
            egress=egress,
            **{key: given.value for key, given in simple.items()},
        )
        _check_egress(document, path, network, simple)
        found[name] = network
    return found


_SIMPLE = ("mtu", "nat", "dns", "isolated")


def _no_overlap(document: Document, path: Path, cidr: _Subnet, others: dict[str, _Subnet]) -> None:
    for name, other in others.items():
        if cidr.overlaps(other):
            line, _ = document.position(("networks", name), key=True)
            document.report(path, f"overlaps {other} of the network {name!r} on line {line}")


def _check_egress(document: Document, path: Path, network: Network, simple: dict[str, Given]) -> None:
    """Rules that could let nothing through are a mistake."""
    if not network.egress:
        return
    if not network.nat:
        document.report((*path, "egress"), "nothing leaves the network: `nat` is false", "set `nat: true`, or drop it")
    names = [rule.to for rule in network.egress if rule.named]
    if not names:
        return
    if not network.dns:
        message = f"the name {names[0]!r} needs `dns`: what it stands for is learned from what guests are answered"
        document.report(simple["dns"].path, message, "set `dns: true`, or write addresses")
    elif network.nameservers is not None and network.nameservers[:1] != (network.gateway,):
        message = f"guests do not ask the gateway first, so nobody learns what {names[0]!r} of `egress` stands for"
        document.report((*path, "nameservers"), message, f"leave it out, or begin with {network.gateway}")


def _cidr(document: Document, path: Path) -> IPv4Network | None:
    given = look_up(document, path)
    if not given.usable:
        return None
    try:
        cidr = IPv4Network(given.value, strict=False)
    except ValueError:
        document.report(path, f"{document.shown(path)} is not a network", "write one such as 172.30.7.0/24")
        return None
    low, high = PREFIXES.start, PREFIXES.stop - 1
    if str(cidr) != given.value:
        document.report(path, f"{document.shown(path)} has bits set behind its prefix", f"write {cidr}")
    elif cidr.prefixlen not in PREFIXES:
        document.report(path, f"the prefix is /{cidr.prefixlen}", f"write /{low} to /{high}")
    elif not any(cidr.subnet_of(private) for private in PRIVATE):
        document.report(path, f"{cidr} is not private", f"take a part of {', '.join(map(str, PRIVATE))}")
    else:
        return cidr
    return None


def _cidr6(document: Document, path: Path) -> IPv6Network | None:
    given = look_up(document, path)
    if not given.usable:
        return None
    try:
        cidr = IPv6Network(given.value, strict=False)
    except ValueError:
        document.report(path, f"{document.shown(path)} is not an IPv6 network", "write one such as fd00:30:7::/64")
        return None
    if cidr.prefixlen != PREFIX6:
        document.report(path, f"the prefix is /{cidr.prefixlen}", f"write /{PREFIX6}")
    elif not cidr.subnet_of(UNIQUE_LOCAL):
        document.report(
            path, f"{cidr} is not a unique local network", f"take a /{PREFIX6} of {UNIQUE_LOCAL} (RFC 4193)"
        )
    elif str(cidr) != given.value:
        document.report(path, f"{document.shown(path)} is not in its shortest form without host bits", f"write {cidr}")
    else:
        return cidr
    return None


def _nameservers(document: Document, path: Path) -> tuple[IPv4Address, ...] | None:
    """In the order of the file, each once; None if the file says nothing."""
    given = look_up(document, path)
    if not given.usable:
        return None
    servers: dict[IPv4Address, None] = {}
    for index, text in enumerate(given.value):
        here = (*path, index)
        if document.is_bad(here):
            continue
        address = _address(text)
        if address is None or address.is_multicast or address.is_unspecified or address.is_reserved:
            document.report(
                here, f"{document.shown(here)} is not the address of a nameserver", "write one such as 9.9.9.9"
            )
        else:
            servers[address] = None
    return tuple(servers)


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None
