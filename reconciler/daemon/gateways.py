"""The name server's sockets on the gateways of networks, kept in step with networks and bridges.

The root helper binds them. A bridge that was deleted and made again gets new ones, and systemd-resolved is told of it
again, as it forgets a link that goes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address

from reconciler.daemon.zones import access_of
from reconciler.drivers.network.dns.granting import Allow
from reconciler.drivers.network.dns.server import Server
from reconciler.drivers.network.dns.zone import Address
from reconciler.drivers.network.refusals import explained
from reconciler.helper.client import HelperClient
from reconciler.helper.names import LinkKind, LinkOwner
from reconciler.lib.errors import BangerError
from reconciler.lib.log import Log
from reconciler.model.vm import Network

Key = tuple[str, str]
"""Environment and network."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What sockets are bound to: an address, and the bridge that has it, which is another one once it is made again."""

    index: int
    gateway: IPv4Address


@dataclass(slots=True)
class _Opened:
    """What is there for one network."""

    place: _Place
    network: Network
    routed: bool = False


class Gateways:
    """For one thread, but for what the server calls by itself.

    Parameters
    ----------
    connect: makes a connected client of the helper, for the thread that calls it.
    index_of: the interface index of a bridge, by its name; OSError if it is not there.
    """

    def __init__(
        self,
        server: Server,
        install: str,
        log: Log,
        *,
        connect: Callable[[], HelperClient],
        index_of: Callable[[str], int],
    ) -> None:
        self._server = server
        self._install = install
        self._log = log
        self._connect = connect
        self._index_of = index_of
        self._opened: dict[Key, _Opened] = {}
        self._troubles: dict[Key, str] = {}
        self._client: HelperClient | None = None
        self._granting: HelperClient | None = None

    def keep(self, wanted: Mapping[Key, Network]) -> bool:
        """Answers on the gateways of these networks that have a bridge, and on no others; False if something failed."""
        for key in self._opened.keys() - wanted.keys():
            self._shut(key)
        self._troubles = {key: trouble for key, trouble in self._troubles.items() if key in wanted}
        with ExitStack() as stack:
            # One connection for all, and none while all is well: root's helper is a process of its own.
            stack.callback(self._disconnect)
            failed = [key for key, network in wanted.items() if not self._kept(key, network)]
        return not failed

    def close(self) -> None:
        """Once the server has stopped."""
        if self._granting is not None:
            self._granting.close()

    def _kept(self, key: Key, network: Network) -> bool:
        environment, name = key
        bridge = LinkOwner(self._install, os.geteuid(), environment, LinkKind.BRIDGE, name).interface
        try:
            place = _Place(self._index_of(bridge), network.gateway)
        except OSError:
            self._shut(key)
            return True  # when it is made, somebody says so
        try:
            with explained(f"DNS of network {environment}/{name}"):
                self._bind(key, network, place)
                self._route(key)
        except (BangerError, OSError) as problem:
            trouble = problem.cause if isinstance(problem, BangerError) else str(problem)
            if self._troubles.get(key) != trouble:
                self._log.warning(trouble, hint=getattr(problem, "hint", None), environment=environment)
            self._troubles[key] = trouble
            return False
        self._troubles.pop(key, None)
        return True

    def _bind(self, key: Key, network: Network, place: _Place) -> None:
        opened = self._opened.get(key)
        if opened is None or opened.place != place:
            self._shut(key)  # before the helper binds to what may be the same address
            udp, tcp = self._helper().dns_sockets(install=self._install, environment=key[0], network=key[1])
            self._server.open("/".join(key), udp, tcp, access_of(network), self._allow(key))
            self._opened[key] = _Opened(place, network)
            self._log.info("answering", environment=key[0], network=key[1], address=str(place.gateway))
        elif opened.network != network:
            self._server.change("/".join(key), access_of(network))
            opened.network = network

    def _route(self, key: Key) -> None:
        opened = self._opened[key]
        if not opened.routed:
            self._helper().route_names(install=self._install, environment=key[0], network=key[1])
            opened.routed = True

    def _shut(self, key: Key) -> None:
        if self._opened.pop(key, None) is not None:
            self._server.close("/".join(key))

    def _helper(self) -> HelperClient:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _allow(self, key: Key) -> Allow:
        environment, network = key

        def allow(entry: str, addresses: tuple[Address, ...], seconds: int) -> None:
            # In the server's egress thread, with a client of its own: it waits for nobody here, and a helper of root's
            # lives as long as the thread that began it.
            if self._granting is None:
                self._granting = self._connect()
            with explained(f"egress of network {environment}/{network}"):
                self._granting.allow_addresses(
                    install=self._install,
                    environment=environment,
                    network=network,
                    name=entry,
                    addresses=[str(address) for address in addresses],
                    seconds=seconds,
                )

        return allow
