"""A VM that pretends to be another reaches nobody: whatever it sends with a forged source is heard by nobody else."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from tests.host.lab import (
    ADDRESSES,
    ADDRESSES6,
    GATEWAY,
    GATEWAY6,
    Lab,
    lab_fixture,  # noqa: F401 - a fixture
)
from tests.host.netns import (
    MARKS,
    helper_fixture,  # noqa: F401 - a fixture
    install_fixture,  # noqa: F401 - a fixture
    namespace_fixture,  # noqa: F401 - a fixture
)
from tests.host.spaces import arp, frame, ipv4, ipv6

pytestmark = MARKS

FORGED_MAC = "02:de:ad:be:ef:01"
EVERYBODY = "ff:ff:ff:ff:ff:ff"
WEB, DB = ADDRESSES["web"], ADDRESSES["db"]
WEB6, DB6 = ADDRESSES6["web"], ADDRESSES6["db"]
UDP = struct.pack("!HHHH", 9, 9, 8, 0)


@dataclass
class Macs:
    web: str
    db: str


def advert(target: str) -> bytes:
    """A neighbour advertisement (RFC 4861) that says: `target` is here."""
    from socket import AF_INET6, inet_pton

    return struct.pack("!BBHI", 136, 0, 0, 0x20000000) + inet_pton(AF_INET6, target)


FORGED = {
    "another MAC": lambda m: frame(FORGED_MAC, EVERYBODY, 0x0800, ipv4(WEB, "255.255.255.255")),
    "a neighbour's MAC": lambda m: frame(m.db, EVERYBODY, 0x0800, ipv4(WEB, "255.255.255.255")),
    "a neighbour's MAC and address": lambda m: frame(m.db, EVERYBODY, 0x0800, ipv4(DB, "255.255.255.255")),
    "another address": lambda m: frame(m.web, EVERYBODY, 0x0800, ipv4("172.30.7.99", "255.255.255.255")),
    "a neighbour's address": lambda m: frame(m.web, EVERYBODY, 0x0800, ipv4(DB, "255.255.255.255")),
    "the gateway's address": lambda m: frame(m.web, EVERYBODY, 0x0800, ipv4(GATEWAY, "255.255.255.255")),
    "no address": lambda m: frame(m.web, EVERYBODY, 0x0800, ipv4("0.0.0.0", "255.255.255.255")),
    "an address of the outside": lambda m: frame(m.web, EVERYBODY, 0x0800, ipv4("8.8.8.8", "255.255.255.255")),
    "ARP for a neighbour": lambda m: arp(m.web, m.web, DB, GATEWAY),
    "ARP for the gateway": lambda m: arp(m.web, m.web, GATEWAY, DB),
    "ARP with a neighbour's MAC inside": lambda m: arp(m.web, m.db, WEB, GATEWAY),
    "ARP with a neighbour's MAC outside": lambda m: arp(m.db, m.web, WEB, GATEWAY),
    "another IPv6 address": lambda m: frame(m.web, EVERYBODY, 0x86DD, ipv6("fd00:1:2:3::99", "ff02::1", 17, UDP)),
    "a neighbour's IPv6 address": lambda m: frame(m.web, EVERYBODY, 0x86DD, ipv6(DB6, "ff02::1", 17, UDP)),
    "a link-local address with another MAC": lambda m: frame(
        FORGED_MAC, EVERYBODY, 0x86DD, ipv6("fe80::99", "ff02::1", 17, UDP)
    ),
    "a neighbour advertised": lambda m: frame(m.web, EVERYBODY, 0x86DD, ipv6(WEB6, "ff02::1", 58, advert(DB6))),
    "the gateway advertised": lambda m: frame(m.web, EVERYBODY, 0x86DD, ipv6("fe80::99", "ff02::1", 58, advert(GATEWAY6))),
    "a router advertised": lambda m: frame(
        m.web, EVERYBODY, 0x86DD, ipv6("fe80::99", "ff02::1", 58, struct.pack("!BBHIII", 134, 0, 0, 0, 0, 0))
    ),
    "a VLAN": lambda m: frame(m.web, EVERYBODY, 0x8100, struct.pack("!HH", 5, 0x0800) + ipv4(WEB, "255.255.255.255")),
    "a provider's VLAN": lambda m: frame(
        m.web, EVERYBODY, 0x88A8, struct.pack("!HH", 5, 0x0800) + ipv4(WEB, "255.255.255.255")
    ),
    "another protocol": lambda m: frame(m.web, EVERYBODY, 0x88CC, bytes(46)),
}  # fmt: skip
LEGITIMATE = {
    "IPv4": lambda m: frame(m.web, EVERYBODY, 0x0800, ipv4(WEB, "255.255.255.255")),
    "ARP": lambda m: arp(m.web, m.web, WEB, DB),
    "IPv6": lambda m: frame(m.web, EVERYBODY, 0x86DD, ipv6(WEB6, "ff02::1", 17, UDP)),
    "link-local IPv6": lambda m: frame(m.web, EVERYBODY, 0x86DD, ipv6("fe80::99", "ff02::1", 17, UDP)),
    "itself advertised": lambda m: frame(m.web, EVERYBODY, 0x86DD, ipv6(WEB6, "ff02::1", 58, advert(WEB6))),
}


def heard(lab: Lab, forged: dict[str, bytes]) -> set[str]:
    """Which of the frames that the first VM sends reach the second one, or the host."""
    listeners = [lab.db.packets("eth0"), lab.host.packets(lab.bridge)]
    last = arp(lab.web.mac, lab.web.mac, WEB, "172.30.7.77")
    lab.web.send(*forged.values(), last)
    found = set()
    for listener in listeners:
        with listener:
            while (got := listener.recv(65536)) != last:  # in order: once the last has come, nothing earlier will
                # AF_PACKET hands a VLAN's tag over beside the frame.
                found |= {name for name, sent in forged.items() if got in (sent, sent[:12] + sent[16:])}
    return found


def test_nothing_forged_is_heard(lab: Lab) -> None:
    lab.rules()
    macs = Macs(lab.web.mac, lab.db.mac)
    assert heard(lab, {name: make(macs) for name, make in LEGITIMATE.items()}) == set(LEGITIMATE)
    assert heard(lab, {name: make(macs) for name, make in FORGED.items()}) == set()


def test_without_rules_all_of_it_would_be(lab: Lab) -> None:
    macs = Macs(lab.web.mac, lab.db.mac)
    # A frame from the receiver's own MAC is not delivered by any bridge.
    everything = {name: make(macs) for name, make in FORGED.items()}
    assert heard(lab, everything) >= set(FORGED) - {name for name in FORGED if "neighbour's MAC" in name}


def test_a_vm_with_another_address_or_mac_reaches_nobody(lab: Lab) -> None:
    lab.rules()
    web = lab.web
    assert web.reaches(DB, 80, lab.db, "0.0.0.0") == WEB
    web.ip(f"addr del {WEB}/24 dev eth0")
    web.ip("addr add 172.30.7.99/24 dev eth0")
    assert web.reaches(DB, 80, lab.db, "0.0.0.0") is None
    assert web.reaches(GATEWAY, 80, lab.host, "0.0.0.0") is None
    web.ip("addr del 172.30.7.99/24 dev eth0")
    web.ip(f"addr add {WEB}/24 dev eth0")
    assert web.reaches(DB, 80, lab.db, "0.0.0.0") == WEB
    web.ip(f"link set eth0 address {FORGED_MAC}")
    web.ip("route replace default via 172.30.7.1")
    assert web.reaches(DB, 80, lab.db, "0.0.0.0") is None
    assert web.reaches(GATEWAY, 80, lab.host, "0.0.0.0") is None


@pytest.mark.parametrize("vms", [[], [("db", DB)]])
def test_a_vm_that_the_rules_do_not_list_reaches_nobody(lab: Lab, vms: list[tuple[str, str]]) -> None:
    lab.rules(vms=vms)
    macs = Macs(lab.web.mac, lab.db.mac)
    lab.web.send(*(make(macs) for make in LEGITIMATE.values()))
    assert lab.web.reaches(GATEWAY, 80, lab.host, "0.0.0.0") is None
    if vms:
        assert lab.db.reaches(GATEWAY, 80, lab.host, "0.0.0.0") == DB
