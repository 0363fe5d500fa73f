"""Which nameservers the host itself asks (resolv.conf(5)). Reads two files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

# Where systemd-resolved runs, /etc/resolv.conf names only its own address on loopback; this file names what it asks.
FILES = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))

_Server = TypeVar("_Server")


def servers(usable: Callable[[str], _Server | None], files: Iterable[Path] = FILES) -> tuple[_Server, ...]:
    """The host's nameservers in its order, each once, from the first file that names a usable one.

    `usable` makes of an address as it is written what is wanted of it, or None.
    """
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        lines = [words for line in text.splitlines() if len(words := line.split()) > 1 and words[0] == "nameserver"]
        found = dict.fromkeys(server for words in lines if (server := usable(words[1])) is not None)
        if found:
            return tuple(found)
    return ()


def upstream(files: Iterable[Path] = FILES) -> tuple[IPv4Address, ...]:
    """Those that guests can ask too: their IPv4 addresses mean the same to another machine."""
    return servers(_of_others, files)


def _of_others(text: str) -> IPv4Address | None:
    try:
        address = IPv4Address(text)
    except ValueError:
        return None
    of_others = not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)
    return address if of_others else None
