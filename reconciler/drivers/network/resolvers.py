"""Which nameservers the host itself asks, so that guests can ask them too (resolv.conf(5)). Reads two files."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

# Where systemd-resolved runs, /etc/resolv.conf names only its own address on loopback; this file names what it asks.
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_CLASSIC = Path("/etc/resolv.conf")


def upstream(files: Iterable[Path] = (_RESOLVED, _CLASSIC)) -> tuple[IPv4Address, ...]:
    """The host's IPv4 nameservers in its order, from the first file that names one that another machine can ask."""
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = tuple(dict.fromkeys(address for line in text.splitlines() if (address := _server(line)) is not None))
        if found:
            return found
    return ()


def _server(line: str) -> IPv4Address | None:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return None
    try:
        address = IPv4Address(words[1])
    except ValueError:
        return None
    of_others = not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)
    return address if of_others else None
