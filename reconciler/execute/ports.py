"""Ports of the host for the forwards of user-mode networks.

Those of the loopback that banger uses itself are kept while they are free, else new ones; published ones are as the file
says.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from reconciler.drivers.vmm.backend import Forward
from reconciler.model.vm import Protocol, Publication


def choose_ports(guest_ports: Sequence[str], held: Mapping[str, int], taken: set[int]) -> dict[str, int]:
    """Guest port → free port of 127.0.0.1.

    Parameters
    ----------
    held: what this VM had before; kept if nobody listens there now, so that a port in somebody's notes stays right.
    taken: ports that belong to VMs of ours, stopped ones too.
    """
    chosen: dict[str, int] = {}
    for guest in guest_ports:
        port = held.get(guest)
        if port is None or not is_free(Forward(host_port=port, guest_port=int(guest))):
            port = _unused(taken | set(chosen.values()))
        chosen[guest] = port
    return chosen


def forward_of(port: Publication) -> Forward:
    """A publication as the VMM does it: on IPv4, and on all addresses where none is named."""
    return Forward(
        host_port=port.host_port,
        guest_port=port.guest_port,
        address=IPv4Address(port.host_address or 0),
        protocol=port.protocol,
    )


def is_free(forward: Forward) -> bool:
    """Whether nobody has the port; also where that cannot be told, since the VMM will tell."""
    kind = socket.SOCK_STREAM if forward.protocol is Protocol.TCP else socket.SOCK_DGRAM
    with socket.socket(type=kind) as probe:
        if kind == socket.SOCK_STREAM:
            # As QEMU does: a connection in TIME_WAIT does not make the port taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(forward.address), forward.host_port))
        except OSError as problem:
            return problem.errno != errno.EADDRINUSE
    return True


def _unused(taken: set[int]) -> int:
    # The kernel's choice is from the ephemeral range and at random, so few tries are enough.
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port
