"""What bridged networks need. `network: user` needs none of it, so nothing here is more than a warning."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler.doctor.check import Check, Status
from reconciler.lib.paths import HELPER_SOCKET

_TUN = Path("/dev/net/tun")
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
