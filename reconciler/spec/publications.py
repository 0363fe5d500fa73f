"""Published ports of a VM: `8080:80` and its kin to what the model takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from reconciler.model.vm import NO_NETWORK, USER_NETWORK, Network, Protocol, Publication
from reconciler.spec.defaults import look_up
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document

_FORM = re.compile(r"(?:([0-9.]+|\[[^]]+\]):)?([0-9]+):([0-9]+)(?:/(tcp|udp))?")
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Written:
    """A publication, and where the file has it."""

    path: Path
    publication: Publication

    def advanced(self, steps: int) -> Publication:
        """For the VM that many places behind the first of its `count`."""
        return replace(self.publication, host_port=self.publication.host_port + steps)


def resolve_ports(
    document: Document, path: Path, network: str | None, networks: Mapping[str, Network], count: int
) -> list[Written]:
    """The publications of a VM of the file.

    Parameters
    ----------
    network: the VM's; None if that was reported.
    count: how many VMs it makes; for each further one the host's port is one higher.
    """
    given = look_up(document, path)
    if not given.usable or not given.value:
        return []
    if network == NO_NETWORK:
        document.report(
            path, f"nothing reaches a VM on the network {network!r}", "leave it out, or choose another network"
        )
        return []
    found: list[Written] = []
    for index, text in enumerate(given.value):
        here = (*path, index)
        match = None if document.is_bad(here) else _FORM.fullmatch(text)
        if match is None:
            continue  # the schema has seen to its form
        ports = int(match[2]), int(match[3])
        address = _host_address(document, here, match[1] or "", network, networks)
        if max(ports) > _LAST_PORT:
            document.report(here, f"{max(ports)} is not a port", f"write 1 to {_LAST_PORT}")
        elif ports[0] + max(count, 1) - 1 > _LAST_PORT:
            hint = f"begin at {_LAST_PORT - count + 1} or below"
            document.report(here, f"the host's port of the last of {count} VMs would be {ports[0] + count - 1}", hint)
        elif address is not None:
            protocol = Protocol(match[4] or "tcp")
            made = Publication(host_address=address, host_port=ports[0], protocol=protocol, guest_port=ports[1])
            found.append(Written(here, made))
    return found


def check_clashes(document: Document, published: Iterable[tuple[str, Path, Publication]]) -> None:
    """Reports each port of the host that a file gives away twice. `published` has VM, place and publication."""
    seen: dict[tuple[int, Protocol], list[tuple[str, Path, Publication]]] = {}
    told: set[Path] = set()
    for vm, path, publication in published:
        same = seen.setdefault((publication.host_port, publication.protocol), [])
        other = next((entry for entry in same if entry[2].clashes(publication)), None)
        same.append((vm, path, publication))
        if other is None or path in told or document.full:
            continue
        told.add(path)
        line, _ = document.position(other[1])
        what = f"{publication.protocol} port {publication.host_port} of the host"
        document.report(path, f"{what} for {vm!r} leads to {other[0]!r} on line {line} already", "choose another port")


def _host_address(
    document: Document, path: Path, text: str, network: str | None, networks: Mapping[str, Network]
) -> str | None:
    """In canonical form, empty for all; None after a report."""
    if not text:
        return ""
    home = networks.get(network or "")
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        document.report(path, f"{text[:64]!r} is not an address", "write one of the host's, such as 127.0.0.1:8080:80")
        return None
    if address.is_unspecified:
        document.report(path, f"{address} is no address of a host", "leave it and its colon out for all addresses")
    elif address.is_multicast or address == IPv4Address("255.255.255.255"):
        document.report(path, f"{address} is not one host's address", "write one of this host's")
    elif isinstance(address, IPv6Address) and address.is_loopback:
        reason = "the kernel leads nothing from ::1 to another machine's address"
        document.report(path, f"a port of ::1 cannot be published: {reason}", "write 127.0.0.1")
    elif isinstance(address, IPv6Address) and (address.is_link_local or address.ipv4_mapped or address.scope_id):
        document.report(path, f"{address} cannot be published on", "write a global or unique local address of the host")
    elif isinstance(address, IPv6Address) and network == USER_NETWORK:
        document.report(path, f"the network {network!r} publishes on IPv4 addresses only", "write an IPv4 address")
    elif isinstance(address, IPv6Address) and home is not None and home.cidr6 is None:
        hint = f"give networks.{network} a cidr6, or write an IPv4 address"
        document.report(path, f"the VM has no IPv6 address that {address} could lead to", hint)
    else:
        return str(address)
    return None
