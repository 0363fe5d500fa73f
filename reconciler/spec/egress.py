"""Egress rules of a network: destinations and ports, in the one form that the rest of banger knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from reconciler.model.vm import Egress, Protocol
from reconciler.spec.defaults import look_up
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document

MAX_RULES = 256
"""After each port of a rule has become one of its own."""

_MAX_NAME = 253  # RFC 1035, section 2.3.4, as text without the root
_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORTS = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?(?:/(tcp|udp))?")
_LAST_PORT = 65535


def resolve_egress(document: Document, path: Path) -> tuple[Egress, ...] | None:
    """The rules, each once and sorted; None if the file says nothing, or nothing usable."""
    given = look_up(document, path)
    if not given.usable:
        return None
    rules: set[Egress] = set()
    for index in range(len(given.value)):
        here = (*path, index)
        if document.is_bad(here):
            continue
        to = _destination(document, (*here, "to"))
        if to is not None:
            rules.update(
                Egress(to=to, protocol=protocol, first=first, last=last)
                for protocol, first, last in _ports(document, (*here, "ports"))
            )
    if len(rules) > MAX_RULES:
        document.report(path, f"makes {len(rules)} rules", f"at most {MAX_RULES} are allowed: use ranges", key=True)
    return tuple(sorted(rules))


def _destination(document: Document, path: Path) -> str | None:
    given = look_up(document, path)
    if not given.usable:
        return None
    text = str(given.value)
    subnet = _subnet(text)
    if subnet is not None:
        plain = str(subnet).removesuffix(f"/{subnet.max_prefixlen}")
        if text not in (str(subnet), plain):
            document.report(
                path, f"{document.shown(path)} is not in its shortest form without host bits", f"write {plain}"
            )
        elif subnet.is_multicast or subnet.is_loopback or subnet.is_link_local:
            document.report(path, f"{plain} is not beyond the host", "write an address that other hosts have")
        else:
            return str(subnet)
        return None
    numeric = ":" in text or "/" in text or text.rpartition(".")[2].isdigit()
    if not numeric and text.lower() != text:
        document.report(path, f"{document.shown(path)} has capital letters", f"write {text.lower()}")
    elif numeric or not _NAME.fullmatch(text) or len(text) > _MAX_NAME:
        hint = "write one such as 9.9.9.9, 10.1.0.0/16, deb.debian.org or *.debian.org"
        document.report(path, f"{document.shown(path)} is neither an address, a network nor a DNS name", hint)
    else:
        return text
    return None


def _subnet(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _ports(document: Document, path: Path) -> Iterator[tuple[Protocol, int, int]]:
    given = look_up(document, path)
    if not given.written:
        yield Protocol.ANY, 0, 0
    if not given.usable:
        return
    if not given.value:
        document.report(path, "has no entries", "leave it out for all ports, or write at least one")
    for index, value in enumerate(given.value):
        here = (*path, index)
        match = _PORTS.fullmatch(str(value))
        if document.is_bad(here) or match is None:
            continue  # the schema has seen to its form
        first = int(match[1])
        last = int(match[2] or first)
        if max(first, last) > _LAST_PORT:
            document.report(here, f"{max(first, last)} is not a port", f"write 1 to {_LAST_PORT}")
        elif first > last:
            document.report(here, f"{document.shown(here)} runs backwards", f"write {last}-{first}")
        else:
            yield Protocol(match[3] or "tcp"), first, last
