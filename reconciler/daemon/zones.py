"""The zone of an installation: what its inventory says now, about every environment."""

from __future__ import annotations

from ipaddress import IPv4Address

from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.zone import Host, Subnet, Zone
from reconciler.lib.errors import BangerError
from reconciler.model.vm import Network
from reconciler.store.db import Database
from reconciler.store.inventory import Inventory

Networks = dict[str, dict[str, Network]]
"""Environment → name → network."""


class Zones:
    """Builds the zone anew when, and only when, VMs or networks have changed. For one thread.

    Parameters
    ----------
    database: a connection that writes nothing, so that every commit is another one's, and is seen.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._inventory = Inventory(database)
        self._version: int | None = None
        self._facts: object = None
        self._zone: Zone | None = None

    def current(self) -> Zone:
        """The zone as of the last commit. Raises BangerError if the inventory could not be read even once."""
        try:
            version = self._database.data_version
            if version != self._version:
                self._read()
                # Only now: and the version from before, so that a commit in between is looked at again.
                self._version = version
        except BangerError:
            if self._zone is None:
                raise
        assert self._zone is not None
        return self._zone

    def _read(self) -> None:
        residents, networks = self._inventory.addresses(), networks_of(self._inventory)
        if (residents, networks) == self._facts:
            return  # it was an event, say
        hosts = []
        for environment, name, where, text in residents:
            network = networks.get(environment, {}).get(where)
            address = IPv4Address(text) if text else None
            address6 = network.address6(address) if network is not None and address is not None else None
            hosts.append(Host(environment=environment, name=name, address=address, address6=address6))
        self._zone = Zone(
            hosts, (subnet for each in networks.values() for one in each.values() for subnet in _both(one))
        )
        self._facts = (residents, networks)


def networks_of(inventory: Inventory) -> Networks:
    """Every network that is recorded. Raises BangerError."""
    return {environment: inventory.networks(environment) for environment in inventory.environment_names()}


def access_of(network: Network) -> Access:
    """What the guests of a network, and the host by its address there, may ask its gateway."""
    named = tuple(dict.fromkeys(rule.to for rule in network.egress or () if rule.named))
    return Access(
        sources=(network.cidr,),
        outside=network.nat and network.egress != (),
        egress=named,
        only_egress=network.egress is not None and all(rule.named for rule in network.egress),
        ipv6=network.cidr6 is not None,
    )


def _both(network: Network) -> tuple[Subnet, ...]:
    return (network.cidr,) if network.cidr6 is None else (network.cidr, network.cidr6)
