"""The bridges, taps and packet filter rules of ours that the kernel has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedBridge:
    """A network's bridge. `mtu` in bytes; `addresses` and `ports` (interface names) sorted."""

    name: str
    mtu: int
    up: bool
    addresses: tuple[IPv4Interface, ...] = ()
    addresses6: tuple[IPv6Interface, ...] = ()
    """Without link-local ones, which every interface has."""
    ports: tuple[str, ...] = ()

    @property
    def cidr(self) -> IPv4Network | None:
        """The network it serves: that of its only address, if that is the network's first. Else None: it has drifted."""
        if len(self.addresses) != 1:
            return None
        network = self.addresses[0].network
        return network if self.addresses[0].ip == network.network_address + 1 else None

    @property
    def cidr6(self) -> IPv6Network | None:
        """Likewise for IPv6; None too if it has none."""
        if len(self.addresses6) != 1:
            return None
        network = self.addresses6[0].network
        return network if self.addresses6[0].ip == network.network_address + 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRules:
    """The rules that are loaded for a network. `digest` is the one that they were loaded under.

    `intact` is false if they are no longer what was loaded then.
    """

    digest: str
    intact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One installation's rules in the packet filter, by (environment, network).

    `generation` changes with everybody's rules. `blockers` name chains of others that drop what is forwarded, which
    keeps networks of ours from the outside: `ip filter FORWARD`.
    """

    generation: int = 0
    rules: Mapping[tuple[str, str], ObservedRules] = field(default_factory=dict)
    blockers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedTap:
    """A VM's tap. `mtu` in bytes; `master` is the bridge's interface name; `owner` the uid that may open it.

    `carrier` is true exactly while a program has the tap open: a VM that runs on a tap without it has lost its network.
    """

    name: str
    mtu: int
    up: bool
    carrier: bool
    master: str | None = None
    owner: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """One installation's links, by (environment, network) and (environment, vm)."""

    bridges: Mapping[tuple[str, str], ObservedBridge] = field(default_factory=dict)
    taps: Mapping[tuple[str, str], ObservedTap] = field(default_factory=dict)
