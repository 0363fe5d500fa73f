"""Who may ask, about what, and which names an egress rule means."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from reconciler.drivers.network.dns.access import Access
from reconciler.drivers.network.dns.granting import MARGIN_SECONDS, MOST_SECONDS, lifetime

LAB = Access(sources=(IPv4Network("172.30.7.0/24"),), outside=True, egress=("deb.example.org", "*.example.net"))


@pytest.mark.parametrize(("host", "admitted"), [("172.30.7.1", True), ("172.30.7.254", True), ("172.30.8.1", False), ("127.0.0.1", False), ("fd00::1", False)])  # fmt: skip
def test_sources(host: str, admitted: bool) -> None:
    assert LAB.admits(host) is admitted


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("deb.example.org", ("deb.example.org",)),
        ("a.deb.example.org", ()),
        ("example.org", ()),
        ("example.net", ()),  # the star is at least one label
        ("a.example.net", ("*.example.net",)),
        ("b.a.example.net", ("*.example.net",)),
        ("aexample.net", ()),
        ("example.net.evil.org", ()),
    ],
)
def test_matching(name: str, entries: tuple[str, ...]) -> None:
    assert LAB.matching(tuple(name.encode().split(b"."))) == entries


def test_names_alone_under_egress_are_the_only_ones_that_are_looked_up() -> None:
    name, other = (b"deb", b"example", b"org"), (b"secret", b"evil", b"org")
    only = Access(sources=LAB.sources, outside=True, egress=LAB.egress, only_egress=True)
    assert (only.looks_up(name), only.looks_up(other)) == (True, False)
    assert (LAB.looks_up(name), LAB.looks_up(other)) == (True, True)
    assert not Access(sources=LAB.sources).looks_up(other)


def test_only_what_can_be_outside_is_let_through() -> None:
    inside = [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:1.2.3.4",
    ]
    texts = [*inside, "192.0.2.1", "10.0.0.1", "2a00::1"]
    both = Access(sources=LAB.sources, ipv6=True).to_allow(map(ip_address, texts))
    assert [str(address) for address in both] == ["192.0.2.1", "10.0.0.1", "2a00::1"]
    four = LAB.to_allow(map(ip_address, texts))
    assert [str(address) for address in four] == ["192.0.2.1", "10.0.0.1"]


def test_a_gateway_can_have_only_ipv4_guests() -> None:
    assert not Access(sources=(IPv6Network("fd00::/64"),)).admits("172.30.7.1")


@pytest.mark.parametrize("ttl", [0, 1, 60, 300, 86_300, 86_400, 2**31 - 1])
def test_addresses_are_let_through_for_longer_than_anybody_may_remember_them(ttl: int) -> None:
    seconds, visible = lifetime(ttl)
    assert 60 <= seconds <= MOST_SECONDS
    assert 0 <= visible <= ttl
    assert seconds >= visible + MARGIN_SECONDS
