"""A VM's tap on the host, through the helper. Both calls may be repeated without harm."""

from __future__ import annotations

from reconciler.drivers.network.refusals import explained
from reconciler.helper.client import HelperClient


def ensure(
    client: HelperClient, *, install: str, environment: str, network: str, vm: str, mtu: int, operation: str = ""
) -> str:
    """Makes the tap exist, up, on the network's bridge, openable by this user; returns the interface name.

    Raises BangerError: the network has no bridge yet (retryable), a foreign link has the name, ...
    """
    with explained(f"tap of vm {vm}"):
        return client.ensure_tap(
            install=install, environment=environment, network=network, vm=vm, mtu=mtu, operation=operation
        )


def delete(client: HelperClient, *, install: str, environment: str, vm: str, operation: str = "") -> bool:
    """Deletes the tap; False if there was none. A VMM that has it open loses it: stop the VM first."""
    with explained(f"tap of vm {vm}"):
        return client.delete_tap(install=install, environment=environment, vm=vm, operation=operation)
