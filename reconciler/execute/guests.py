"""Guests: what each is told at its start, by its config disk."""

from __future__ import annotations

import hashlib
import json
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

from reconciler.drivers.guest import config as guest_config
from reconciler.drivers.guest import keys
from reconciler.drivers.guest.entrypoint import Entrypoint
from reconciler.drivers.guest.sources import Entry
from reconciler.drivers.network import resolvers
from reconciler.execute.tools import Tools
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import ImagePaths
from reconciler.model.ids import mac_address
from reconciler.model.vm import DOMAIN, PREFIX6, USER_NETWORK, Network, Vm
from reconciler.store.inventory import VmRow

# QEMU's user-mode network (its documentation, "Using the user mode network stack").
_USER_ADDRESS = IPv4Interface("10.0.2.15/24")
_USER_GATEWAY = IPv4Address("10.0.2.2")
_USER_NAMESERVER = IPv4Address("10.0.2.3")

_UPSTREAMS = 2  # with the gateway as many as a resolver looks at: resolv.conf(5), MAXNS


def tell(
    vm: Vm, network: Network | None, row: VmRow, tools: Tools, files: tuple[Entry, ...] = ()
) -> guest_config.GuestConfig:
    """What the guest of a VM is told at its start; `files` are what it is to hold."""
    place = tools.paths.vm(tools.environment, vm.name)
    address: IPv4Interface | None = None
    gateway: IPv4Address | None = None
    address6: IPv6Interface | None = None
    nameservers: tuple[IPv4Address, ...] = ()
    search: tuple[str, ...] = ()
    mtu = 1500
    if vm.network == USER_NETWORK:
        address, gateway, nameservers = _USER_ADDRESS, _USER_GATEWAY, (_USER_NAMESERVER,)
    elif network is not None and row.address is not None:
        address = IPv4Interface(f"{row.address}/{network.cidr.prefixlen}")
        gateway, nameservers, mtu = network.gateway, nameservers_of(network), network.mtu
        if (own := network.address6(row.address)) is not None:
            address6 = IPv6Interface(f"{own}/{PREFIX6}")
        if network.dns:
            search = (f"{tools.environment}.{DOMAIN}",)
    return guest_config.GuestConfig(
        hostname=vm.name,
        environment=tools.environment,
        machine_id=hashlib.sha256(f"machine\0{tools.inventory.install}\0{row.id}".encode()).hexdigest()[:32],
        mac=mac(row, tools) if address else None,
        address=address,
        gateway=gateway,
        address6=address6,
        gateway6=network.gateway6 if network is not None and address6 is not None else None,
        nameservers=nameservers,
        search=search,
        mtu=mtu,
        authorized_keys=(keys.ensure_client_key(tools.paths.client_key).strip(),),
        host_key=place.host_key.read_text(),
        host_key_public=place.host_key.with_suffix(".pub").read_text().strip(),
        entrypoint=_entrypoint(tools.paths.image(vm.image_id)),
        volumes=tuple((guest_config.volume_serial(volume.name), volume.mount) for volume in vm.volumes),
        files=files,
        env=vm.env,
    )


def _entrypoint(image: ImagePaths) -> Entrypoint:
    """What the image says of itself; nothing where it says nothing, as those from Debian packages."""
    try:
        manifest = json.loads(image.manifest.read_text())
    except (OSError, ValueError) as problem:
        raise BangerError(f"cannot read {image.manifest}: {problem}", hint="remove the image from the cache") from None
    config = manifest.get("config") if isinstance(manifest, dict) else None
    return Entrypoint.of_config(config) if isinstance(config, dict) else Entrypoint()


def nameservers_of(network: Network) -> tuple[IPv4Address, ...]:
    """Whom the guests of a network ask: what the file says, else the gateway, then some of those that the host asks.

    The latter only where guests can reach them; with them, names of the world resolve while no controller runs.
    """
    if network.nameservers is not None:
        return network.nameservers
    own = (network.gateway,) if network.dns else ()
    reachable = network.nat and network.egress is None
    return own + (resolvers.upstream()[:_UPSTREAMS] if reachable else ())


def mac(row: VmRow, tools: Tools) -> str:
    """Of the guest's network card, and for good."""
    return mac_address(tools.inventory.install, row.environment, row.name)
