"""A network's bridge on the host, through the helper. Both calls may be repeated without harm."""

from __future__ import annotations

from reconciler.drivers.network.refusals import explained
from reconciler.helper.client import HelperClient


def ensure(
    client: HelperClient,
    *,
    install: str,
    environment: str,
    network: str,
    cidr: str,
    mtu: int,
    cidr6: str = "",
    operation: str = "",
) -> str:
    """Makes the bridge exist, up, with the first address of `cidr`, and `mtu` bytes; returns the interface name.

    `cidr6` is empty, or the network of which the bridge has the first address besides.

    Raises BangerError: the cidr is taken, a foreign link has the name, the helper is lost (retryable), ...
    """
    with explained(f"bridge of network {network}"):
        return client.ensure_bridge(
            install=install,
            environment=environment,
            network=network,
            cidr=cidr,
            mtu=mtu,
            cidr6=cidr6,
            operation=operation,
        )


def delete(client: HelperClient, *, install: str, environment: str, network: str, operation: str = "") -> bool:
    """Deletes the bridge; False if there was none. Raises BangerError: it has a foreign port, ..."""
    with explained(f"bridge of network {network}"):
        return client.delete_bridge(install=install, environment=environment, network=network, operation=operation)
