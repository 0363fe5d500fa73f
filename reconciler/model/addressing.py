"""Which VM has which address: explicit ones first, then those that are held, then the lowest free. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from reconciler.model.vm import Network, Vm


def allocate(
    network: Network, vms: Iterable[Vm], held: Mapping[str, IPv4Address]
) -> tuple[dict[str, IPv4Address], list[str]]:
    """Gives each VM of one network its address.

    Parameters
    ----------
    vms: those of this network, in the order in which new addresses are handed out.
    held: what VMs have now, by name; also of VMs that are on their way out or to another address, so that no address
        is handed out while somebody has it.

    Returns the addresses by VM name, and the names of the VMs that got none because the network is full.
    A held address is kept as long as it fits the network and no other VM asks for it by name.
    """
    wanted = list(vms)
    result = {vm.name: vm.address for vm in wanted if vm.address is not None}
    taken = {network.gateway, network.cidr.network_address, network.cidr.broadcast_address, *result.values()}
    dynamic = [vm for vm in wanted if vm.address is None]
    for vm in dynamic:
        address = held.get(vm.name)
        if address is not None and address in network.cidr and address not in taken:
            result[vm.name] = address
            taken.add(address)
    # Also what its holder is about to give up: whether that one may be touched is decided later.
    taken.update(held.values())
    free = (address for address in network.cidr.hosts() if address not in taken)
    full = []
    for vm in dynamic:
        if vm.name in result:
            continue
        address = next(free, None)
        if address is None:
            full.append(vm.name)
        else:
            result[vm.name] = address
    return result, full
