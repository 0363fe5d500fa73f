"""What the helper's links and tables are called, and how one is recognised again. Pure.

A name is derived, never given: nobody can ask for `eth0`. The alias (ip-link(8), `alias`) says whose a link is, and
a table's comment says the same. The group (ip-link(8), `group`) is set in the same call that creates a bridge, which
the alias cannot be: a bridge of our name and group without an alias is one whose maker was killed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

BRIDGE_GROUP = 0x62676E72
NAME = r"[a-z][a-z0-9-]{0,30}"
_ALIAS = re.compile(rf"banger:([0-9a-f]{{12}}):(0|[1-9][0-9]{{0,9}}):({NAME}):(network|vm)/({NAME})")
_NAME = re.compile(r"bg[bt]-[0-9a-f]{10}")


class LinkKind(StrEnum):
    """What a link of ours serves; the value stands in its alias."""

    BRIDGE = "network"
    TAP = "vm"

    @property
    def prefix(self) -> str:
        return "bgb-" if self is LinkKind.BRIDGE else "bgt-"


@dataclass(frozen=True, slots=True)
class LinkOwner:
    """Whose a link is: a state directory's id, a uid, and the network or VM by name."""

    install: str
    uid: int
    environment: str
    kind: LinkKind
    name: str

    @property
    def alias(self) -> str:
        """At most 108 bytes; the kernel takes 255 (IFALIASZ, linux/if.h), and 127 as a table's comment."""
        return f"banger:{self.install}:{self.uid}:{self.environment}:{self.kind}/{self.name}"

    @property
    def interface(self) -> str:
        """The interface name: 14 bytes, and the kernel takes 15 (IFNAMSIZ)."""
        text = f"{self.kind}\0{self.uid}\0{self.install}\0{self.environment}\0{self.name}"
        return self.kind.prefix + hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def mac(self) -> str:
        """A fixed, locally administered MAC: else a bridge takes over the lowest of its ports', and changes it."""
        return _mac(self.interface)

    @property
    def guest_mac(self) -> str:
        """The MAC that a VM has inside, behind its tap."""
        return _mac(f"{self.install}\0{self.environment}\0{self.name}")

    @property
    def port_group(self) -> int:
        """The group of a bridge's taps, by which its rules know one that they do not list."""
        return int(self.interface[-8:], 16)

    def __str__(self) -> str:
        return f"{self.kind} {self.environment}/{self.name}"


def address6(cidr: IPv4Network, cidr6: IPv6Network, address: IPv4Address) -> IPv6Address:
    """The IPv6 address that goes with an IPv4 one: as far into its network as that is into its own."""
    return cidr6.network_address + (int(address) - int(cidr.network_address))


def parse_alias(alias: str | None) -> LinkOwner | None:
    """The owner that an alias names; None if it is not exactly one of ours."""
    match = _ALIAS.fullmatch(alias or "")
    if match is None:
        return None
    return LinkOwner(match[1], int(match[2]), match[3], LinkKind(match[4]), match[5])


def owner_of(interface: str, alias: str | None) -> LinkOwner | None:
    """The owner of a link, if its alias is one of ours and its name the one derived from it."""
    owner = parse_alias(alias)
    return owner if owner is not None and owner.interface == interface else None


def managed(interface: str) -> bool:
    """Whether an interface name is one that a bridge or a tap of ours could have."""
    return _NAME.fullmatch(interface) is not None


def _mac(text: str) -> str:
    digest = hashlib.sha256(f"mac\0{text}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))
