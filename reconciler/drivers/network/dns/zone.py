"""Which names the VMs have, and which addresses have a name. Pure: no sockets, no clock, no wire format.

A name is a tuple of labels from left to right, lower case, without the root: `(b"web", b"demo", b"vm")`.

* `<vm>.<environment>.vm` is that VM. `<vm>.vm` is the VM of that name if just one environment has one: a name that
  meant this VM to one guest and another VM to the next would be worse than none.
* An address inside a network of ours has the VM's full name, or none. Nobody else is asked about it: outside, the
  same private address is another machine's.
* A name with other names below it exists (RFC 8020): `demo.vm` is an empty answer, not a missing name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

DOMAIN = b"vm"
_IN_ADDR, _IP6 = (b"in-addr", b"arpa"), (b"ip6", b"arpa")
_HEX = b"0123456789abcdef"

Name = tuple[bytes, ...]
Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


class Kind(StrEnum):
    """What of a name is asked for; the zone has nothing of any other kind."""

    A = "A"
    AAAA = "AAAA"
    PTR = "PTR"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A VM. Without addresses its name exists all the same."""

    environment: str
    name: str
    address: IPv4Address | None = None
    address6: IPv6Address | None = None

    @property
    def labels(self) -> Name:
        return (self.name.encode(), self.environment.encode(), DOMAIN)


@dataclass(frozen=True, slots=True)
class Found:
    """What the zone says.

    Parameters
    ----------
    exists: whether there is anything of that name, of whatever kind.
    addresses, names: the answer; both empty if there is nothing of the kind that was asked for.
    apex: the zone that this is about, for the SOA record of a negative answer.
    """

    exists: bool
    apex: Name
    addresses: tuple[Address, ...] = ()
    names: tuple[Name, ...] = ()


class Zone:
    """All names of one installation.

    Parameters
    ----------
    hosts: every VM of every environment.
    subnets: the networks for whose addresses nobody else is to be asked.
    """

    def __init__(self, hosts: Iterable[Host] = (), subnets: Iterable[Subnet] = ()) -> None:
        self.subnets = tuple(subnets)
        self._hosts: dict[Name, Host] = {}
        self._names: dict[Address, Name] = {}
        bearers: dict[bytes, list[Host]] = defaultdict(list)
        environments: set[bytes] = set()
        for host in hosts:
            labels = host.labels
            self._hosts[labels] = host
            environments.add(labels[1])
            bearers[labels[0]].append(host)
            for address in (host.address, host.address6):
                if address is not None:
                    self._names[address] = labels
        self._empty = {(environment, DOMAIN) for environment in environments} | {(DOMAIN,)}
        for name, found in bearers.items():
            if len(found) == 1:
                self._hosts[name, DOMAIN] = found[0]

    def find(self, name: Name, kind: Kind) -> Found | None:
        """What is known of `name`; None if it is not ours, and somebody else may know."""
        if name and name[-1] == DOMAIN:
            return self._forward(name, kind)
        if name[-2:] == _IN_ADDR or name[-2:] == _IP6:
            return self._reverse(name, kind)
        return None

    def _forward(self, name: Name, kind: Kind) -> Found:
        host = self._hosts.get(name)
        if host is None:
            return Found(name in self._empty, (DOMAIN,))
        address = {Kind.A: host.address, Kind.AAAA: host.address6}.get(kind)
        return Found(True, (DOMAIN,), (address,) if address is not None else ())

    def _reverse(self, name: Name, kind: Kind) -> Found | None:
        asked = _range(name)
        subnet = next((each for each in self.subnets if asked is not None and _inside(asked, each)), None)
        if asked is None or subnet is None:
            return None
        apex = name[len(name) - 2 - _labels_of(subnet) :]
        if asked.prefixlen < asked.max_prefixlen:
            return Found(True, apex)
        owner = self._names.get(asked.network_address)
        return Found(owner is not None, apex, names=(owner,) if owner is not None and kind is Kind.PTR else ())


def _labels_of(subnet: Subnet) -> int:
    """How many labels before `arpa`'s two the smallest reverse zone inside `subnet` has that a name can tell apart."""
    return -(-subnet.prefixlen // (8 if subnet.version == 4 else 4))


def _inside(asked: Subnet, subnet: Subnet) -> bool:
    return asked.version == subnet.version and asked.prefixlen >= subnet.prefixlen and asked.network_address in subnet


def _range(name: Name) -> Subnet | None:
    """The addresses below a reverse name, from all to one (RFC 1035 3.5, RFC 3596 2.5); None if it is no such name."""
    digits = name[-3::-1]
    if name[-2:] == _IN_ADDR:
        if len(digits) > 4 or not all(_octet(label) for label in digits):
            return None
        packed = bytes(int(label) for label in digits)
        return IPv4Network((packed.ljust(4, b"\0"), 8 * len(digits)))
    if len(digits) > 32 or not all(len(label) == 1 and label in _HEX for label in digits):
        return None
    number = int(b"".join(digits).ljust(32, b"0"), 16)
    return IPv6Network((number, 4 * len(digits)))


def _octet(label: bytes) -> bool:
    """Whether it is an octet in its one usual spelling: no sign, no leading zero."""
    return label.isdigit() and len(label) <= 3 and int(label) <= 255 and (label == b"0" or not label.startswith(b"0"))
