"""What the helper's links are called, and how one is recognised again. Pure.

A name is derived, never given: nobody can ask for `eth0`. The alias (ip-link(8), `alias`) says whose a link is.
The group (ip-link(8), `group`) is set in the same call that creates a bridge, which the alias cannot be: a bridge
of our name and group without an alias is one whose maker was killed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

BRIDGE_GROUP = 0x62676E72
_ALIAS = re.compile(
    r"banger:([0-9a-f]{12}):(0|[1-9][0-9]{0,9}):([a-z][a-z0-9-]{0,30}):(network|vm)/([a-z][a-z0-9-]{0,30})"
)
_BRIDGE_NAME = re.compile(r"bgb-[0-9a-f]{10}")
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
        """At most 108 bytes; the kernel takes 255 (IFALIASZ, linux/if.h)."""
        return f"banger:{self.install}:{self.uid}:{self.environment}:{self.kind}/{self.name}"

    @property
    def interface(self) -> str:
        """The interface name: 14 bytes, and the kernel takes 15 (IFNAMSIZ)."""
        text = f"{self.kind}\0{self.uid}\0{self.install}\0{self.environment}\0{self.name}"
        return self.kind.prefix + hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def mac(self) -> str:
        """A fixed, locally administered MAC: else a bridge takes over the lowest of its ports', and changes it."""
        digest = hashlib.sha256(f"mac\0{self.interface}".encode()).digest()
        return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))

    def __str__(self) -> str:
        return f"{self.kind} {self.environment}/{self.name}"


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


def is_bridge_name(interface: str) -> bool:
    """Whether an interface name is one that a bridge of ours could have."""
    return _BRIDGE_NAME.fullmatch(interface) is not None


def managed(interface: str) -> bool:
    """Whether an interface name is one that a bridge or a tap of ours could have."""
    return _NAME.fullmatch(interface) is not None
