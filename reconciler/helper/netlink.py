"""The kernel's own interface to links, addresses, routes and rule generations (netlink(7), rtnetlink(7)).

A few system calls per request, where running `ip` would cost as many milliseconds. Links are changed by the index of
the one that was looked at, so that a renamed one is not taken for another. Every failure is an OSError.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from typing import Self

from reconciler.helper.links import Changes, Interface, Link, Network
from reconciler.helper.names import BRIDGE_GROUP, LinkKind

_NEWLINK, _DELLINK, _GETLINK, _SETLINK, _NEWADDR, _DELADDR, _GETADDR, _GETROUTE = 16, 17, 18, 19, 20, 21, 22, 26
_REQUEST, _ACK, _DUMP, _CREATE, _INTERRUPTED = 0x1, 0x4, 0x300, 0x600, 0x10
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, destination length, ...
_IFLA_NAME, _IFLA_LINKINFO, _IFLA_EXT_MASK = 3, 18, 29
_SKIP_STATS = struct.pack("=HHI", 8, _IFLA_EXT_MASK, 8)
_UP = 1
_GETGEN = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NETLINK_NETFILTER, _NFTABLES_GROUP = 12, 1 << 7 - 1  # NFNLGRP_NFTABLES, as a bit
_NUMBERS = {"mtu": 4, "master": 10, "group": 27}


class Netlink:
    """A socket to one of netlink's families."""

    def __init__(self, family: int, groups: int = 0) -> None:
        self._sequence = 0
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
        self.socket.bind((0, groups))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, kind: int, body: bytes, flags: int = _ACK) -> list[bytes]:
        """The payloads that answer a request."""
        self._sequence += 1
        self.socket.send(_HEADER.pack(16 + len(body), kind, flags | _REQUEST, self._sequence, 0) + body)
        answers: list[bytes] = []
        whole = True
        while True:
            data = self.socket.recv(1 << 17)
            start = 0
            while start < len(data):
                length, found, traits, _, _ = _HEADER.unpack_from(data, start)
                payload = data[start + 16 : start + length]
                start += (length + 3) & ~3
                whole = whole and not traits & _INTERRUPTED
                if found not in (_ERROR, _DONE):
                    answers.append(payload)
                elif code := -struct.unpack_from("=i", payload)[0]:
                    raise OSError(code, os.strerror(code))
                else:
                    return answers if whole else self.ask(kind, body, flags)


class Routing(Netlink):
    """Links, addresses and routes."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def link(self, name: str) -> Link | None:
        """The link of a name, if there is one."""
        try:
            return _link(self.ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_NAME, name) + _SKIP_STATS)[0])
        except OSError as problem:
            if problem.errno == 19:  # ENODEV
                return None
            raise

    def links(self) -> dict[str, Link]:
        found = map(_link, self._dump_links())
        return {link.name: link for link in found}

    def count_taps(self, uid: int) -> int:
        """How many links carry an alias of a VM of that uid. Reads no more of each than that."""
        ours = re.compile(rf"banger:[0-9a-f]{{12}}:{uid}:[a-z0-9-]+:{LinkKind.TAP}/".encode())
        return sum(1 for payload in self._dump_links() if ours.search(payload))

    def addresses(self) -> Iterator[tuple[int, Interface]]:
        for payload in self.ask(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), _DUMP):
            _, length, _, _, index = _ADDRESS.unpack_from(payload)
            found = _attributes(payload[_ADDRESS.size :])
            # IFA_LOCAL, which of a tunnel is its own end; IPv6 has but IFA_ADDRESS.
            yield index, ip_interface((found.get(2) or found[1], length))

    def routes(self) -> Iterator[tuple[int, Network]]:
        """All tables' routes. A pair of /1 is a default route too: VPN programs write it so, to beat the real one."""
        for payload in self.ask(_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), _DUMP):
            length = payload[1]
            found = _attributes(payload[_ROUTE.size :])
            if length > 1 and 1 in found:  # RTA_DST
                yield int.from_bytes(found.get(4, b""), "little"), ip_network((found[1], length), strict=False)

    def create_bridge(self, name: str, changes: Changes) -> None:
        kind = _attribute(_IFLA_LINKINFO, _attribute(1, "bridge"))
        group = {**changes, "group": BRIDGE_GROUP}
        body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_NAME, name) + _encode(group) + kind
        self.ask(_NEWLINK, body, _ACK | _CREATE)

    def set(self, index: int, changes: Changes, *, ipv6: bool) -> None:
        """Changes a link; one that gets an alias gets no link-local IPv6 address when it comes up."""
        name = {key: value for key, value in changes.items() if key == "alias"}
        if name:
            # Without such an address the host is no neighbour that guests could reach around the rules.
            # IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE: none } }
            none = _attribute(26, _attribute(socket.AF_INET6, _attribute(8, b"\1"))) if ipv6 else b""
            self.ask(_SETLINK, _LINK.pack(0, 0, index, 0, 0) + _encode(name) + none)
        if len(changes) > len(name):
            up = _UP if changes.get("up") else 0
            self.ask(_SETLINK, _LINK.pack(0, 0, index, up, up) + _encode(changes))

    def delete(self, index: int) -> None:
        self.ask(_DELLINK, _LINK.pack(0, 0, index, 0, 0))

    def add_address(self, index: int, address: Interface) -> None:
        # IFA_FLAGS, IFA_F_NODAD: an IPv6 address of ours serves at once, though the bridge has no port yet.
        more = _attribute(8, struct.pack("=I", 2)) if address.version == 6 else b""
        if address.version == 4:
            more = _attribute(4, address.network.broadcast_address.packed)  # IFA_BROADCAST
        self.ask(_NEWADDR, _address(index, address) + more, _ACK | _CREATE)

    def delete_address(self, index: int, address: Interface) -> None:
        self.ask(_DELADDR, _address(index, address))

    def _dump_links(self) -> list[bytes]:
        return self.ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + _SKIP_STATS, _DUMP)


class Rules(Netlink):
    """What nftables tells of itself; `watch` to have the socket readable when rules change."""

    def __init__(self, *, watch: bool = False) -> None:
        super().__init__(_NETLINK_NETFILTER, _NFTABLES_GROUP if watch else 0)

    def generation(self) -> int:
        """The number of the present rules; every transaction that changes some adds one."""
        return int.from_bytes(_attributes(self.ask(_GETGEN, bytes(4))[0][4:])[1], "big")


def _link(payload: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(payload)
    found = _attributes(payload[_LINK.size :])
    info = _attributes(found.get(_IFLA_LINKINFO, b""))
    kind, data = _text(info.get(1)) or "", _attributes(info.get(2, b""))
    is_tun = kind == "tun" and 3 in data
    return Link(
        name=_text(found[_IFLA_NAME]) or "",
        index=index,
        kind=("tap" if data[3][0] == 2 else "tun") if is_tun else kind,
        alias=_text(found.get(20)),
        group=_number(found.get(27)),
        mac=found.get(1, b"").hex(":"),
        mtu=_number(found.get(4)),
        up=bool(flags & _UP),
        master=_number(found.get(10)),
        tap_owner=_number(data[1]) if is_tun and 1 in data else None,
    )


def _address(index: int, address: Interface) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    head = _ADDRESS.pack(family, address.network.prefixlen, 0, 0, index)
    return head + _attribute(2, packed) + _attribute(1, packed)


def _encode(changes: Changes) -> bytes:
    encoded = b"".join(_attribute(_NUMBERS[k], struct.pack("=I", v)) for k, v in changes.items() if k in _NUMBERS)
    if "alias" in changes:
        encoded += _attribute(20, str(changes["alias"]))
    if "mac" in changes:
        encoded += _attribute(1, bytes.fromhex(str(changes["mac"]).replace(":", "")))
    return encoded


def _attribute(kind: int, value: bytes | str) -> bytes:
    data = value if isinstance(value, bytes) else value.encode() + b"\0"
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    start = 0
    while start + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, start)
        found[kind & 0x3FFF] = data[start + 4 : start + length]
        start += max(length + 3 & ~3, 4)
    return found


def _text(value: bytes | None) -> str | None:
    return value.rstrip(b"\0").decode("utf-8", "replace") if value is not None else None


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "little")
