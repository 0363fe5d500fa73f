"""What name service needs root for: port 53 of a gateway, and a word to systemd-resolved."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address
from pathlib import Path

from reconciler.helper.protocol import Code, Refusal
from reconciler.helper.run import Runner, find

_RESOLVED = Path("/run/systemd/resolve/resolv.conf")


def sockets(gateway: IPv4Address) -> tuple[int, ...]:
    """A UDP and a TCP socket bound to port 53; the caller closes them."""
    bound: list[int] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as made:
                if kind == socket.SOCK_STREAM:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((str(gateway), 53))
                bound.append(made.detach())
    except OSError as problem:
        for fd in bound:
            os.close(fd)
        code = Code.PORT_TAKEN if problem.errno == errno.EADDRINUSE else Code.FAILED
        raise Refusal(code, f"port 53 of {gateway}: {problem.strerror}") from None
    return tuple(bound)


def route(run: Runner, bridge: str, gateway: IPv4Address) -> bool:
    """Has systemd-resolved ask the gateway for names below `vm`; False where it does not run."""
    if find("resolvectl") is None or not _RESOLVED.exists():
        return False
    run("resolvectl", "dns", bridge, str(gateway))
    run("resolvectl", "domain", bridge, "~vm")
    return True
