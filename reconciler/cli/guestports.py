"""Which ports of a guest something listens on, and how the host publishes them.

The guest's kernel is asked for its tables (proc_pid_net(5)), with the busybox that every guest boots with: an image needs
no tools of its own for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from reconciler.api.service import VmRef
from reconciler.lib import run
from reconciler.model.status import ObjectStatus

_TABLES = ("tcp", "tcp6", "udp", "udp6")
COMMAND = ("/run/banger/busybox", "tail", "-n", "+1", *(f"/proc/net/{table}" for table in _TABLES))
HEADER = ("PORT", "LISTENS ON", "PUBLISHED", "NOTE")

_HEAD = "==> /proc/net/"
_WAITING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN, and TCP_CLOSE for a socket without a peer: net/tcp_states.h
_TIMEOUT = 30.0  # seconds

Address = IPv4Address | IPv6Address
Listening = tuple[str, int, Address]
"""Protocol, port, address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPort:
    """One port of a guest. `addresses` are the guest's own, `published` the host's, as (address, port)."""

    protocol: str
    number: int
    addresses: tuple[str, ...]
    published: tuple[tuple[str, int], ...]

    def to_json(self, ref: VmRef) -> dict[str, Any]:
        return {
            "kind": "port",
            "environment": ref.environment,
            "vm": ref.name,
            "protocol": self.protocol,
            "port": self.number,
            "addresses": list(self.addresses),
            "published": [{"address": address, "port": port} for address, port in self.published],
        }

    def row(self, *, running: bool) -> list[str]:
        """One line of a table under HEADER."""
        note = ""
        if self.published and running and not self.addresses:
            note = "nothing listens there"
        elif self.published and self.addresses and all(ip_address(a).is_loopback for a in self.addresses):
            note = "listens on the guest's loopback only, which publishing does not reach"
        shown = [f"{_bracketed(address) or '*'}:{port}" for address, port in self.published]
        return [f"{self.number}/{self.protocol}", " ".join(self.addresses) or "-", " ".join(shown) or "-", note]


def listening(argv: Sequence[str]) -> tuple[Listening, ...]:
    """What the guest shows. `argv` enters it with COMMAND. Raises BangerError if that fails."""
    # A kernel without IPv6 lacks two of the tables, which makes the command fail though it shows the others.
    done = run.run(argv, timeout=_TIMEOUT, check=False)
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0 and _HEAD not in text:
        complaint = done.stderr.decode(errors="replace")
        raise run.CommandError("the guest does not show its ports", list(argv), done.returncode, complaint)
    return tuple(parse(text))


def parse(text: str) -> Iterator[Listening]:
    """The sockets of COMMAND's output that wait for peers; lines that are none are passed over."""
    protocol = ""
    for line in text.splitlines():
        if line.startswith(_HEAD):
            protocol = line.removeprefix(_HEAD).split()[0].removesuffix("6")
            continue
        words = line.split()
        if len(words) < 4 or ":" not in words[1] or _WAITING.get(protocol) != words[3]:
            continue
        address, _, port = words[1].partition(":")
        try:
            yield protocol, int(port, 16), _address(address)
        except ValueError:
            continue


def together(found: Sequence[Listening], status: ObjectStatus) -> list[GuestPort]:
    """What listens and what is published, by port."""
    addresses: dict[tuple[int, str], set[Address]] = {}
    published: dict[tuple[int, str], set[tuple[str, int]]] = {}
    for protocol, number, address in found:
        addresses.setdefault((number, protocol), set()).add(address)
    for port in status.details.get("ports", ()):
        key = (int(port["guestPort"]), str(port["protocol"]))
        published.setdefault(key, set()).add((str(port["hostAddress"]), int(port["hostPort"])))
    for guest, host in status.details.get("forwards", {}).items():
        published.setdefault((int(guest), "tcp"), set()).add(("127.0.0.1", int(host)))
    return [
        GuestPort(
            protocol=protocol,
            number=number,
            addresses=tuple(map(str, sorted(addresses.get((number, protocol), ()), key=lambda a: (a.version, int(a))))),
            published=tuple(sorted(published.get((number, protocol), ()))),
        )
        for number, protocol in sorted({*addresses, *published})
    ]


def _address(digits: str) -> Address:
    """The kernel prints words of 32 bits as the processor has them: on x86 the last byte comes first."""
    raw = bytes.fromhex(digits)
    turned = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    if len(turned) == 4:
        return IPv4Address(turned)
    address = IPv6Address(turned)
    return address.ipv4_mapped or address


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
