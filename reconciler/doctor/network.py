"""What bridged networks need. `network: user` needs none of it, so nothing here is more than a warning."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler.doctor.check import Check, Status
from reconciler.drivers.network import connect
from reconciler.drivers.network.filter_probe import read_filter
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import HELPER_SOCKET

_TUN = Path("/dev/net/tun")
_NO_INSTALL = "0" * 12  # blockers are the same for every state directory
_NEEDED = "bridged networks need it; `network: user` does not"


def tun() -> Iterator[Check]:
    """The device that taps are made with (tun(4) of the kernel's networking documentation)."""
    try:
        present = stat.S_ISCHR(_TUN.stat().st_mode)
    except OSError:
        present = False
    if present:
        yield Check(name="tun", status=Status.OK, detail=str(_TUN))
    else:
        yield Check(
            name="tun", status=Status.WARN, detail=f"there is no {_TUN}; {_NEEDED}", hint="as root: modprobe tun"
        )


def helper() -> Iterator[Check]:
    """The way to the root helper: root starts its own, everybody else needs the socket."""
    if os.geteuid() == 0:
        yield Check(name="root-helper", status=Status.OK, detail="started by root as it is needed")
    elif not HELPER_SOCKET.exists():
        yield Check(
            name="root-helper",
            status=Status.WARN,
            detail=f"there is no {HELPER_SOCKET}; {_NEEDED}",
            hint="as root, once: systemctl enable --now banger-helper.socket",
        )
    elif not os.access(HELPER_SOCKET, os.R_OK | os.W_OK):
        yield Check(
            name="root-helper",
            status=Status.WARN,
            detail=f"{HELPER_SOCKET} is closed to you; {_NEEDED}",
            hint="as root: usermod -aG banger USER, then log in again",
        )
    else:
        yield Check(name="root-helper", status=Status.OK, detail=str(HELPER_SOCKET))


def packet_filter() -> Iterator[Check]:
    """Whether rules can be loaded, and whether those of others keep our networks from the outside."""
    name = "packet-filter"
    if os.geteuid() != 0 and not os.access(HELPER_SOCKET, os.R_OK | os.W_OK):
        return  # told above
    try:
        with connect.open_helper(log=Path(os.devnull)) as client:
            shown = read_filter(client, _NO_INSTALL)
    except BangerError as problem:
        hint = problem.hint or "apt-get install nftables"
        yield Check(name=name, status=Status.WARN, detail=f"{problem.cause}; {_NEEDED}", hint=hint)
        return
    if not shown.blockers:
        yield Check(name=name, status=Status.OK, detail="no rules of others are in the way of bridged networks")
    for number, chain in enumerate(shown.blockers):
        yield Check(
            name=name if number == 0 else f"{name}-{number + 1}",
            status=Status.WARN,
            detail=f"the chain {chain} drops what is forwarded, so VMs on bridges may not reach the outside",
            hint=_way_through(chain),
        )


def _way_through(chain: str) -> str:
    """What lets our bridges pass a chain of somebody else; banger itself never touches one."""
    family, _, rest = chain.partition(" ")
    if rest.endswith(" FORWARD") and family in ("ip", "ip6"):
        # Docker's and iptables' own: what stands in DOCKER-USER survives Docker.
        command = "iptables" if family == "ip" else "ip6tables"
        return (
            f"as root: {command} -I FORWARD -i bgb-+ -j ACCEPT; {command} -I FORWARD -o bgb-+ -j ACCEPT"
            " (with Docker, in DOCKER-USER instead of FORWARD)"
        )
    if "firewalld" in chain:
        return "as root: firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE for each bridge, then --reload"
    return f"as root: accept the interfaces bgb-* in {chain}"
