"""Who may ask on a socket of ours, and about what. Pure.

* Names of VMs: anybody whose packets come from inside the network, of whatever environment. A name is no secret: all
  environments of an installation are one person's.
* Other names: only where the network leads outside (`nat`), since an address that cannot be reached is of no use, and
  questions are a way to carry things out. For the same reason, where only names are listed under `egress`, others are
  refused; with a CIDR among them any name may lead there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from reconciler.drivers.network.dns.zone import Address, Name, Subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What one network's socket does for those who ask there.

    Parameters
    ----------
    sources: where questions may come from; others are not even refused.
    outside: whether names that are not ours are looked up.
    egress: names, or `*.name`, whose addresses are let through before they are told.
    only_egress: whether names that are not in `egress` are refused.
    ipv6: whether the network has IPv6; else an IPv6 address needs no letting through, as nobody can go there.
    """

    sources: tuple[Subnet, ...]
    outside: bool = False
    egress: tuple[str, ...] = ()
    only_egress: bool = False
    ipv6: bool = False

    def admits(self, host: str) -> bool:
        """Whether a question from that address is looked at."""
        address = ip_address(host)
        return any(address.version == source.version and address in source for source in self.sources)

    def looks_up(self, name: Name) -> bool:
        return self.outside and (not self.only_egress or bool(self.matching(name)))

    def matching(self, name: Name) -> tuple[str, ...]:
        """The entries of `egress` that a name falls under: each has ports of its own."""
        return tuple(entry for entry in self.egress if _matches(entry, name))

    def to_allow(self, addresses: Iterable[Address]) -> tuple[Address, ...]:
        """What of an answer is worth letting through: what can be somewhere outside at all."""
        return tuple(address for address in addresses if (self.ipv6 or address.version == 4) and _outside(address))


def _matches(entry: str, name: Name) -> bool:
    labels = tuple(entry.lower().encode().split(b"."))
    if labels[0] != b"*":
        return labels == name
    below = labels[1:]
    return len(name) > len(below) and name[-len(below) :] == below


def _outside(address: Address) -> bool:
    """Not one that means the asking machine itself, its link, or many at once."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or getattr(address, "ipv4_mapped", None) is not None
    )
